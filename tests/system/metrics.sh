# A scrape under load passes promtool without a warning.
. "$(dirname "$0")/lib.bash"

start_gateway
secret=$(cat data/generic.secret)
for n in 1 2 3 4 5 6 7 8; do
    body="{\"sku\":\"A-$n\",\"quantity\":$n.5}"
    printf %s "$body" >"body-$n"
    printf 'next\nurl = "%s/in/generic"\ndata-binary = "@body-%d"\nheader = "x-stockgate-signature: %s"\nheader = "x-delivery-id: d-%d"\noutput = "/dev/null"\ncacert = "data/tls-cert.pem"\n' \
        "$PUBLIC" "$n" "$(hmac "$secret" <"body-$n" | hex_of)" "$n"
done | sed 1d >load.curl
# the load goes on until the scrapes are done
(while [[ ! -e stop ]]; do curl -sS --max-time 30 -K load.curl || exit 1; done) &
load=$!
deliver 401 /in/generic '{"sku":"A-1","quantity":1}' -H 'x-stockgate-signature: 00'
deliver 404 /in/nobody '{}'
taken() { curl -sS --max-time 30 "$ADMIN/metrics" | grep -q '^stockgate_deliveries_total{source="generic",result="accepted"} 8$'; }
until_so "the load arrives" taken
for scrape in 1 2 3; do
    curl -sS --max-time 30 -D "head-$scrape" "$ADMIN/metrics" >"metrics-$scrape"
    said=$(promtool check metrics <"metrics-$scrape" 2>&1) || fail "promtool: $said"
    same "promtool says" "" "$said"
done
touch stop
wait "$load" || fail "the load ended early"
grep -qi '^content-type: text/plain; version=0.0.4; charset=utf-8' head-1 || fail "$(cat head-1)"
curl -sS --max-time 30 --compressed -D head-gzip "$ADMIN/metrics" >metrics-gzip
grep -qi '^content-encoding: gzip' head-gzip || fail "no compression when asked for: $(cat head-gzip)"
promtool check metrics <metrics-gzip >/dev/null 2>&1 || fail "the compressed page differs"
# labels only from closed sets: no SKU, no delivery id, no address
if grep -E '"(A-[0-9]|d-[0-9]|127\.0\.0\.1)' metrics-3; then
    fail "a label from an open set"
fi
echo "note: $(grep -vc '^#' metrics-3) series"
stop_gateway
