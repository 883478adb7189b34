# Debian's Prometheus scrapes the admin listener over TLS with a token of the role `read`, by the shipped scrape.yml: it counts what was
# sent, and it is refused without the token, with a revoked one, and by another authority.
. "$(dirname "$0")/lib.bash"
. "$ROOT/tests/system/rig.bash"
. "$ROOT/tests/system/prometheus.bash"

write stockgate.toml <<'TOML'
[admin]
tls = true
tokens = "required"
[source.gen]
kind = "generic"
warehouse = "main"
secret_file = "gen.secret"
identity = { header = "x-delivery-id" }
signature = { algorithm = "hmac-sha256", encoding = "hex", header = "x-signature", signed = "{body}" }
map = { sku = "/sku", quantity = "/quantity" }
TOML
echo 'a-secret-for-this-test-alone' | write gen.secret
"$BIN" token new --role read --name prometheus --data data 2>said | write read.token
"$BIN" token new --role read --name another --data data 2>said | write other.token
start_gateway --config stockgate.toml
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out other.pem -days 2 -subj "/CN=another authority" 2>/dev/null

# the shipped job, once as it is and with each of its two proofs replaced
job() {
    sed -n '/^  - job_name: stockgate$/,/^$/p' "$ROOT/packaging/prometheus/scrape.yml" | sed -e "s/job_name: stockgate/job_name: $1/" \
        -e "s|/etc/prometheus/stockgate.token|$WORK/$2|" -e "s|/etc/prometheus/stockgate-ca.pem|$WORK/$3|" \
        -e "s|stockgate.example.net:9780|${ADMIN#*://}|"
}
echo 'no such token' | write no.token
{
    printf 'global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n'
    printf 'rule_files:\n  - %s\nscrape_configs:\n' "$ROOT/packaging/prometheus/stockgate.rules.yml"
    job stockgate read.token data/tls-cert.pem
    job without_token no.token data/tls-cert.pem
    job another_token other.token data/tls-cert.pem
    job another_authority read.token other.pem
} >prometheus.yml
promtool check config prometheus.yml >checked 2>&1 || fail "$(cat checked)"
start_prometheus prometheus.yml "$(free_port 993)"

until_so "the target is up" is 'up{job="stockgate"}' 1
until_so "another token is as good" is 'up{job="another_token"}' 1
last_error() {
    curl -sS --max-time 30 "$PROM/api/v1/targets" | jq -r --arg job "$1" '.data.activeTargets[] | select(.labels.job == $job) | .lastError'
}
refused_with() {
    [[ $(last_error "$1") == *"$2"* ]]
}
until_so "without a token it is refused with 401" refused_with without_token 401
until_so "a certificate of another authority is not believed" refused_with another_authority x509
same "targets that are up" 2 "$(number 'sum(up)')"

secret=$(cat gen.secret)
for n in $(seq 1 40); do
    body="{\"sku\":\"A-$n\",\"quantity\":$n}"
    deliver 200 /in/gen "$body" -H "x-signature: $(printf %s "$body" | hmac "$secret" | hex_of)" -H "x-delivery-id: d-$n"
done
deliver 401 /in/gen '{"sku":"A-1","quantity":1}' -H 'x-signature: 00'
mine='job="stockgate"'
until_so "it has counted 40" is "stockgate_deliveries_total{$mine, result=\"accepted\"}" 40
until_so "and the refused one" is "stockgate_deliveries_total{$mine, result=\"bad-signature\"}" 1
same "units on hand" 820 "$(number "stockgate_warehouse_units{$mine}")"

# a revoked token counts at once, the other goes on
"$BIN" token revoke another --data data >said 2>&1 || fail "$(cat said)"
until_so "a revoked token is refused" refused_with another_token 401
same "the other token goes on" 1 "$(number "up{$mine}")"
until_so "refusals are counted" at_least "sum(stockgate_admin_auth_failures_total{$mine})" 2
# no token where everybody reads
curl -sS --max-time 30 --cacert data/tls-cert.pem -H "authorization: Bearer $(cat read.token)" "$ADMIN/metrics" >scraped
grep -q '^stockgate_ready 1$' scraped || fail "$(head scraped)"
for token in read.token other.token; do
    if grep -qF "$(cat "$token")" scraped gateway.log; then
        fail "$token is shown"
    fi
done
stop_gateway
stop_prometheus
echo "note: TLS, a token, 40 deliveries counted"
