# The demo of the release binary balances, with everything that it promises to show.
. "$(dirname "$0")/lib.bash"

"$BIN" demo --for 10s --json >demo.json 2>demo.err || fail "exit code $?: $(cat demo.json demo.err)"
same "lines on standard output" 1 "$(wc -l <demo.json | tr -d ' ')"
jq -e '
    .mismatches == 0 and .sources >= 7 and .deliveries >= 10000
    and .duplicates >= 1 and .rejected >= 1 and .dead_letters >= 1
    and .deliveries == .accepted + .duplicates + .rejected
    and .positions > 0 and .warehouses > 0 and .ledger_seq > 0 and .applied > 0' demo.json >/dev/null || fail "$(cat demo.json)"
echo "note: $(jq -r '"\(.deliveries) deliveries, \(.positions) positions"' demo.json)"
