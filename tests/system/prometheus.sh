# Debian's Prometheus scrapes a gateway of 200 sources under load with the scrape configuration, the rules and the dashboard that
# are shipped. What it then says is held against what the platforms have sent.
. "$(dirname "$0")/lib.bash"
. "$ROOT/tests/system/rig.bash"
. "$ROOT/tests/system/prometheus.bash"

SOURCES=200
rules=$ROOT/packaging/prometheus
# as many a second as an unoptimised sender and two cores shared with Prometheus can bear
start_load 71 --rate 400

# the seven platforms, and so many that are only configured
(umask 077 && echo not-a-real-secret-of-an-idle-source >site/idle.secret)
# one that asks for client certificates: it has series of its own
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=clients of nobody" -days 2 \
    -keyout clients.key -out site/clients.pem 2>openssl.log || fail "$(cat openssl.log)"
busy=$(grep -c '^\[source\.[a-z0-9-]*\]$' site/stockgate.toml)
for ((n = busy; n < SOURCES; n++)); do
    printf '[source.idle-%03d]\nkind = "generic"\nwarehouse = "idle"\nsecret_file = "idle.secret"\n' "$n"
    printf 'signature = { algorithm = "hmac-sha256", encoding = "hex", header = "x-signature", signed = "{body}" }\n'
    printf 'map = { sku = "/sku", quantity = "/quantity" }\n'
    ((n > busy)) || printf 'client_ca_file = "clients.pem"\n'
done >>site/stockgate.toml
serve
began=$(date +%s)

# the shipped configuration, with this target and a scrape every three seconds
port=$(free_port 991)
scrape_over_loopback() {
    sed -e "s|/etc/prometheus/stockgate.rules.yml|$rules/stockgate.rules.yml|" \
        -e 's/_interval: 15s/_interval: 3s/' \
        -e '/^  - job_name: stockgate$/,/^$/d' -e 's/^  #\(- job_name\)/  \1/' -e 's/^  #  /    /' \
        -e "s/127.0.0.1:9780/${ADMIN#http://}/" "$rules/scrape.yml"
}
scrape_over_loopback >prometheus.yml
grep -q "${ADMIN#http://}" prometheus.yml || fail "scrape.yml has another form: $(cat prometheus.yml)"
promtool check config prometheus.yml >checked 2>&1 || fail "$(cat checked)"
start_prometheus prometheus.yml "$port"

# ---- under load -----------------------------------------------------------------------------------------------------------
until_so "the target is up" is 'up{job="stockgate"}' 1
genuine='stockgate_deliveries_total{result=~"accepted|duplicate|conflict"}'
refused='stockgate_deliveries_total{result!~"accepted|duplicate|conflict|overloaded|unavailable|incomplete|too-large"}'
until_so "deliveries arrive" at_least "sum($genuine)" 2000
until_so "there is a rate of each" at_least 'count(sum by (source) (rate(stockgate_deliveries_total{result="accepted"}[30s])) > 0)' "$busy"

# every metric that the rules and the dashboard name is there
curl -sS --max-time 30 "$ADMIN/metrics" >scraped
promtool check metrics <scraped >checked 2>&1 || fail "promtool check metrics: $(cat checked)"
same "promtool check metrics says" "" "$(cat checked)"
expressions() {
    curl -sS --max-time 30 "$PROM/api/v1/rules" | jq -r '.data.groups[].rules[].query'
    jq -r '.panels[].targets[]?.expr, .annotations.list[].expr // empty' "$ROOT/packaging/grafana/stockgate.json"
}
expressions >expressions
curl -sS --max-time 30 "$PROM/api/v1/label/__name__/values" | jq -r '.data[]' | sort >known
grep -oE '\b(stockgate|process|scrape)_[a-z0-9_]+' expressions | sort -u >named
(($(wc -l <named) > 40)) || fail "few metrics are named: $(cat named)"
unknown=$(comm -23 named known)
same "metrics that the rules and the dashboard name and nobody exports" "" "$unknown"

# each panel's expressions return data
panels() {
    jq -r '.panels[] | select(.type != "row") | .title as $t | .targets[] | [$t, .refId, .expr] | @tsv' "$ROOT/packaging/grafana/stockgate.json"
}
shown=0
while IFS=$'\t' read -r title ref expr; do
    expr=$(printf %b "$expr" | sed -e 's/\$__rate_interval/30s/g' -e 's/\$instance/.*/g')
    if [[ $expr == *'$'* ]]; then
        fail "panel '$title' uses a variable that nobody sets: $expr"
    fi
    has_data() {
        [[ $(query "$expr" | jq 'map(select(.value[1] != "NaN")) | length') != 0 ]]
    }
    until_so "panel '$title' ($ref) returns data: $expr" has_data
    shown=$((shown + 1))
done < <(panels)
((shown > 60)) || fail "only $shown expressions were asked"

# series: no more than is promised
bound() {
    sed -n "s/^pub const $1: usize = \([0-9]*\);$/\1/p" "$ROOT/src/limits.rs"
}
until_so "there are $SOURCES sources" is 'count(stockgate_source_last_delivery_timestamp_seconds)' "$SOURCES"
# over a minute: a scrape that came too late is no scrape
series=$(number 'max_over_time(scrape_samples_scraped{job="stockgate"}[1m])')
warehouses=$(number 'max_over_time(count(stockgate_warehouse_units)[1m:3s])')
most=$((SOURCES * $(bound SERIES_PER_SOURCE_MAX) + warehouses * $(bound SERIES_PER_WAREHOUSE_MAX) + $(bound SERIES_REST_MAX)))
((series <= most)) || fail "$series series, promised are $most at most: $(query 'topk(20, count by (__name__) ({job="stockgate"}))')"
((series > SOURCES * 20)) || fail "$series series are too few to be those of $SOURCES sources"
((series <= $(sed -n 's/^ *sample_limit: //p' prometheus.yml))) || fail "scrape.yml would refuse $series series"

# the rules work: loaded, and none ends in an error
rule_states() {
    curl -sS --max-time 30 "$PROM/api/v1/rules" | jq -r '.data.groups[].rules[] | select(.evaluationTime > 0) | .health' | sort | uniq -c | tr -s ' '
}
all=$(grep -cE -- '- (alert|record):' "$rules/stockgate.rules.yml")
evaluated() {
    # the group of the gaps has an interval of five minutes
    (($(curl -sS --max-time 30 "$PROM/api/v1/rules" | jq '[.data.groups[].rules[] | select(.health == "ok")] | length') >= all - 3))
}
until_so "the rules are evaluated: $(rule_states)" evaluated
bad=$(curl -sS --max-time 30 "$PROM/api/v1/rules" | jq -r '.data.groups[].rules[] | select(.health == "err") | "\(.name): \(.lastError)"')
same "rules in error" "" "$bad"

# ---- what was sent ---------------------------------------------------------------------------------------------------------
stop_load
until_so "everything is folded" folded
taken=$(sed -n 's/^\([0-9]*\) taken, .*/\1/p' <<<"$SEEN")
forged=$(sed -n 's/.* \([0-9]*\) refused; .*/\1/p' <<<"$SEEN")
[[ -n $taken && -n $forged && $SEEN == *" 0 without an answer"* ]] || fail "the platforms say: $SEEN; $(tail load.log)"
((taken > 2000 && forged > 0)) || fail "the platforms say: $SEEN"
until_so "prometheus has counted $taken genuine deliveries; it says $(number "sum($genuine)")" is "sum($genuine)" "$taken"
until_so "prometheus has counted $forged refused ones; it says $(number "sum($refused)")" is "sum($refused)" "$forged"
until_so "nothing is counted for sources that sent nothing" is 'sum(stockgate_deliveries_total{source=~"idle-.+"})' 0
until_so "every acknowledgement is measured" is stockgate_ack_duration_seconds_count "$taken"
until_so "dead letters are counted" is 'sum(stockgate_dead_letters)' "$(api status | jq .dead_letters)"
until_so "positions are counted" is 'sum(stockgate_warehouse_skus)' "$(api status | jq .levels)"
until_so "changes of levels are counted" is stockgate_ledger_sequence "$(api status | jq .ledger.sequence)"
# every level began at nothing: what came in and went out makes the units on hand
until_so "there are flows" at_least 'count(stockgate_warehouse_units)' "$warehouses"
same "warehouses whose flows do not make their units" "[]" \
    "$(query 'abs(stockgate_warehouse_inflow_units_total - stockgate_warehouse_outflow_units_total - stockgate_warehouse_units) > 0.000001')"
until_so "facts have the ten outcomes of the list" is 'count(count by (outcome) (stockgate_facts_total))' 10

# what fires: nothing that would wake somebody, on a box that is well
firing=$(query 'ALERTS{alertstate="firing", severity="critical"}' | jq -r '.[].metric.alertname' | sort -u)
same "critical alerts on a gateway that is well" "" "$firing"

# ---- the gateway goes away ------------------------------------------------------------------------------------------------
stop_gateway
until_so "the alert of a gateway that is down is on its way" at_least 'count(ALERTS{alertname="StockgateDown", alertstate="pending"})' 1
stop_prometheus
echo "note: $shown expressions, $series series of $SOURCES sources (at most $most), $taken deliveries counted in $(($(date +%s) - began)) s"
