# A disk that fails fsync: from then on nothing is acknowledged, and what was is there. One failure: it reopens by itself.
. "$(dirname "$0")/lib.bash"
. "$(dirname "$0")/rig.bash"
command -v strace >/dev/null || fail "this test needs strace"

# inject WHAT: the gateway's fsync and fdatasync are tampered with, by each thread's own count
inject() {
    UNDER=(strace -D -f -qq -o /dev/null -e trace=fsync,fdatasync -e "inject=fsync,fdatasync:$1")
}

metric() {
    curl -sS --fail --max-time 30 "$ADMIN/metrics" | sed -n "s/^$1 //p"
}

journal_failed() {
    curl -sS --max-time 30 -o ready.txt "$ADMIN/readyz" && grep -q '^journal: failed' ready.txt
}

DATA=$WORK/data
start_load 7
serve
acknowledged_more 100
stop_gateway

# ---- from the 300th on, every fsync fails
inject "error=EIO:when=300+"
serve
until_so "a commit fails" journal_failed
taken=$(acknowledged) tried=$(grep -c ^S "$BOOK")
tried_more() {
    (($(grep -c ^S "$BOOK") > tried + 100))
}
until_so "the platforms go on trying" tried_more
same "nothing is acknowledged after a failed fsync" "$taken" "$(acknowledged)"
same "alive" 200 "$(curl -sS -o /dev/null -w '%{http_code}' "$ADMIN/livez")"
(($(api status | jq .levels) > 0)) || fail "levels can be read"
(($(metric stockgate_journal_commit_failures_total) > 0)) || fail "the metric does not count it"
kill_gateway
UNDER=()
serve
acknowledged_more 100
stop_gateway
judge replay

# ---- one fsync of each thread fails: the journal's and the state's files are opened again, and it goes on
inject "error=EIO:when=200"
serve
once() {
    [[ $(metric stockgate_journal_commit_failures_total) == 1 ]]
}
until_so "one commit fails" once
acknowledged_more 500
ready() {
    [[ $(curl -sS -o /dev/null -w '%{http_code}' "$ADMIN/readyz") == 200 ]]
}
until_so "it is ready again" ready
until_so "everything is folded" folded
stop_gateway
judge replay

# ---- a disk that is slow, and a short queue: what does not fit is put off
inject "delay_enter=100000:when=100+"
printf '[limits]\nqueue = 2\n' >>site/stockgate.toml
serve
overloaded() {
    metric 'stockgate_deliveries_total{[^}]*result="overloaded"[^}]*}' | grep -qv '^0$'
}
until_so "deliveries are put off" overloaded
acknowledged_more 20
kill_gateway
UNDER=()
serve
stop_load
stop_gateway
judge replay
echo "note: $SEEN"
