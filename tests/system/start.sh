# With no configuration it starts in under a second, and what it prints works as pasted.
. "$(dirname "$0")/lib.bash"

began=$(date +%s%N)
start_gateway
took=$((($(date +%s%N) - began) / 1000000))
((took < 1000)) || fail "the first start took $took ms"
sent= shown=
while [[ -z $shown ]] && IFS= read -r line <&3; do
    case $line in
    "  "*send*) sent=$(sh -c "$line" 2>&1) || fail "pasted '$line': $sent" ;;
    "  "*stock*)
        until_so "the delivery is folded" folded
        shown=$(sh -c "$line" 2>&1) || fail "pasted '$line': $shown"
        ;;
    esac
done
[[ $sent == *200* ]] || fail "what was sent: $sent"
grep -Eq '^main +A-1 +5 +generic' <<<"$shown" || fail "what is shown: $shown"
stop_gateway

began=$(date +%s%N)
start_gateway
again=$((($(date +%s%N) - began) / 1000000))
((again < 1000)) || fail "the second start took $again ms"
same "the level after a restart" 5 "$(api stock/main/A-1 | jq .quantity)"
stop_gateway
echo "note: started in $took ms, again in $again ms"
