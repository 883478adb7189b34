# Files that may not grow: it answers 503 and loses nothing; when they may again, acknowledgement resumes by itself.
. "$(dirname "$0")/lib.bash"

# no file of the gateway may grow beyond 1200 KiB; the limit is soft, so that it can be lifted while it runs
trap '' XFSZ
ulimit -S -f 1200
start_gateway
secret=$(cat data/generic.secret)

# send N: one signed delivery, which does not shrink to nothing; prints the status
send() {
    local pad body
    pad=$(awk -v seed="$1" 'BEGIN { srand(seed); for (i = 0; i < 6000; i++) printf "%c", 97 + int(rand() * 16) }')
    body="{\"sku\":\"P-$1\",\"quantity\":$1,\"pad\":\"$pad\"}"
    printf %s "$body" | curl -sS --max-time 30 --cacert data/tls-cert.pem -o answer.body -w '%{http_code}' -X POST --data-binary @- \
        -H 'expect:' -H "x-delivery-id: d-$1" -H "x-stockgate-signature: $(printf %s "$body" | hmac "$secret" | hex_of)" "$PUBLIC/in/generic"
}

n=0 status=200
while [[ $status == 200 ]]; do
    n=$((n + 1))
    ((n < 1000)) || fail "the limit was never met"
    status=$(send "$n")
done
same "the answer when its files may not grow" 503 "$status"
taken=$((n - 1))
not_ready() {
    [[ $(curl -s -o /dev/null -w '%{http_code}' "$ADMIN/readyz") == 503 ]]
}
until_so "it says that it is not ready" not_ready
same "alive all the same" 200 "$(curl -s -o /dev/null -w '%{http_code}' "$ADMIN/livez")"
same "what was taken can be read" 1 "$(api stock/main/P-1 | jq .quantity)"

prlimit --pid "$GATEWAY" --fsize=unlimited
taken_again() {
    [[ $(send "$n") == 200 ]]
}
until_so "acknowledgement resumes by itself" taken_again
ready() {
    [[ $(curl -s -o /dev/null -w '%{http_code}' "$ADMIN/readyz") == 200 ]]
}
until_so "it is ready again" ready
until_so "everything is folded" folded
same "every delivery that was taken is a level" $((taken + 1)) "$(api status | jq .levels)"
stop_gateway
same "the ledger is whole" 0 "$("$BIN" verify --data data >/dev/null 2>&1; echo $?)"
same "the journal gives this state" 0 "$("$BIN" replay --data data >/dev/null 2>&1; echo $?)"
echo "note: $taken deliveries before the limit was met"
