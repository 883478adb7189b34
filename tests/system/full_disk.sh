# A disk that fills up under load: deliveries are put off and nothing else stops; with room again it goes on by itself. Then a
# disk that the gateway has filled itself: retention gets it out of that, with the room that was kept back.
. "$(dirname "$0")/lib.bash"
. "$(dirname "$0")/rig.bash"

status_of() {
    curl -sS --max-time 30 -o "${2:-/dev/null}" -w '%{http_code}' "$ADMIN/$1"
}

metric() {
    curl -sS --fail --max-time 30 "$ADMIN/metrics" | sed -n "s/^$1 //p"
}

full() {
    [[ $(status_of readyz ready.txt) == 503 ]] && grep -q '^disk: failed: full' ready.txt
}

ready() {
    [[ $(status_of readyz) == 200 ]]
}

# fill_up LEAVE: another program takes all of the disk but so many MiB
fill_up() {
    local free
    free=$(df --output=avail -BM disk | tail -1 | tr -dc 0-9)
    fallocate -l "$((free - $1))M" disk/filler
}

# ---- somebody else fills the disk -------------------------------------------------------------------------------------------

make_disk 300
start_load 5
# no checkpoint before the disk is full: the start on the full disk has everything to fold and to write
sed 's/^checkpoint = .*/checkpoint = "1h"/' site/stockgate.toml >site/rare.toml
start_gateway --config site/rare.toml
acknowledged_more 300
until_so "the reserve is there" test "$(metric stockgate_disk_reserve_bytes)" -gt 30000000
fill_up 12
until_so "the disk is full" full
taken=$(acknowledged)

same "alive" 200 "$(status_of livez)"
same "the reserve is in use" 0 "$(metric stockgate_disk_reserve_bytes)"
until_so "what was taken is folded" folded
(($(api status | jq .levels) > 0)) || fail "levels can be read"
tried=$(grep -c ^S "$BOOK")
tried_more() {
    (($(grep -c ^S "$BOOK") > tried + 100))
}
until_so "the platforms go on trying" tried_more
same "nothing is acknowledged on a full disk" "$taken" "$(acknowledged)"

# as Shopify would send it; nobody's book knows it, so it must not be taken
printf '{"inventory_item_id":1,"location_id":1,"available":1}' >body
tag=$(hmac "$(cat site/shopify-eu.secret)" <body | base64_of)
answer=$(curl -sS --max-time 30 --cacert "$DATA/tls-cert.pem" -o /dev/null -D - -X POST --data-binary @body \
    -H "x-shopify-hmac-sha256: $tag" "$PUBLIC/in/shopify-eu" | tr -d '\r')
grep -q '^HTTP/[0-9.]* 503' <<<"$answer" || fail "not 503: $answer"
grep -qi '^retry-after: [0-9]' <<<"$answer" || fail "no Retry-After: $answer"

# the reserve is what is left: enough for checkpoints, and for a start after a crash
kill_gateway
serve
until_so "a gateway that starts on a full disk says so" full
until_so "and folds what it has" folded
written() {
    (($(metric 'stockgate_checkpoints_total{result="ok"}') > 0))
}
until_so "and writes it" written
same "no checkpoint has failed" 0 "$(metric 'stockgate_checkpoints_total{result="failed"}')"
same "still nothing is acknowledged" "$taken" "$(acknowledged)"

rm disk/filler
acknowledged_more 200
until_so "it is ready again" ready
stop_load
stop_gateway
judge replay
echo "the platforms: $SEEN"
rm -rf disk/data

# ---- the gateway fills the disk ---------------------------------------------------------------------------------------------

LISTEN=127.0.0.1:0 ADMIN_LISTEN=127.0.0.1:0
write generic.secret <<<"a-secret-of-this-test"
cat >generic.toml <<'TOML'
[source.gen]
kind = "generic"
warehouse = "main"
secret_file = "generic.secret"
signature = { algorithm = "hmac-sha256", encoding = "hex", header = "x-signature", signed = "{body}" }
identity = { header = "x-delivery-id" }
map = { sku = "/sku", quantity = "/quantity" }
TOML
start_gateway --config generic.toml
# nothing that shrinks when it is compressed
pad=$(head -c 750000 /dev/urandom | base64 -w 0)
send() {
    printf '{"sku":"P-%s","quantity":%s,"pad":"%s"}' "$1" "$1" "$pad" >body
    curl -sS --max-time 30 --cacert "$DATA/tls-cert.pem" -o /dev/null -w '%{http_code}' -X POST --data-binary @body \
        -H 'expect:' -H "x-delivery-id: d-$1" -H "x-signature: $(hmac a-secret-of-this-test <body | hex_of)" "$PUBLIC/in/gen"
}
for ((n = 1; n <= 120; n++)); do
    same "delivery $n" 200 "$(send "$n")"
done
until_so "everything is folded" folded
same "nothing has aged out" 1 "$(api status | jq .journal.oldest)"
stop_gateway
fill_up 2
printf '[retention]\nbytes = "64MiB"\n' >>generic.toml
start_gateway --config generic.toml
taken_again() {
    [[ $(send 121) == 200 ]]
}
until_so "retention makes room, and acknowledgement resumes" taken_again
aged=$(api status | jq .journal.oldest)
((aged > 1)) || fail "nothing has aged out, and yet there is room"
[[ -s $DATA/snapshot.redb ]] || fail "records have gone without a snapshot"
until_so "the reserve is there again" ready
until_so "everything is folded" folded
same "every level is there" 121 "$(api status | jq .levels)"
stop_gateway
rm disk/filler
"$BIN" verify --data "$DATA" >said 2>&1 || fail "verify: $(cat said)"
"$BIN" replay --data "$DATA" >said 2>&1 || fail "replay: $(cat said)"
echo "note: $taken taken before it was full; retention freed $((aged - 1)) records on a full disk"
