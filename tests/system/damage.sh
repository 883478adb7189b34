# A state that was damaged or deleted is rebuilt: the levels are what they were.
. "$(dirname "$0")/lib.bash"
. "$(dirname "$0")/rig.bash"

# every level, one a line
levels() {
    local page next=
    while page=$(api "stock?limit=1000${next:+&after=$next}"); do
        jq -c '.stock[] | [.warehouse, .sku, .quantity, .state, .ledger]' <<<"$page"
        next=$(jq -r '.next // empty' <<<"$page")
        [[ -n $next ]] || return 0
    done
}

# flip FILE SEED COUNT: so many bytes that hold something become other bytes
flip() {
    python3 - "$@" <<'PY'
import random, sys
path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chosen = random.Random(seed)
data = bytearray(open(path, "rb").read())
used = [i for i, byte in enumerate(data) if byte]
for i in chosen.sample(used, count):
    data[i] ^= chosen.randrange(1, 256)
open(path, "wb").write(data)
PY
}

DATA=$WORK/data
start_load 9
serve
acknowledged_more 3000
stop_load
until_so "everything is folded" folded
levels >before
stop_gateway
[[ -s before ]] || fail "there are no levels"

rebuilt=0
as_before() {
    serve
    until_so "$1: everything is folded" folded
    levels >after
    diff before after >differences || fail "$1: $(head -5 differences)"
    stop_gateway
    judge replay
}

for seed in {1..12}; do
    flip "$DATA/state.redb" "$seed" $((seed % 3 ? 50 : 1))
    as_before "flipped bytes, seed $seed"
    if compgen -G "$DATA/state.damaged-*" >/dev/null; then
        grep -q 'set aside' gateway.log || fail "it is not in the log"
        rebuilt=$((rebuilt + 1))
        rm "$DATA"/state.damaged-*
    fi
done
((rebuilt >= 6)) || fail "$rebuilt of 12 damaged states were set aside: the others cannot all have been lucky"

rm "$DATA/state.redb"
as_before "deleted"
head -c 100000 /dev/urandom >"$DATA/state.redb"
as_before "overwritten"
: >"$DATA/state.redb"
as_before "emptied"
head -c 1000000 "$DATA/state.redb" >cut && mv cut "$DATA/state.redb"
as_before "cut short"

# the journal: what it still gives is kept, what is lost is told by its numbers, and the gateway serves. The state has folded all of
# it, so the levels stand
lost_in_all=0
for seed in {1..4}; do
    segment=$(ls "$DATA"/journal/*.redb | head -1)
    # few enough that the status lists every range
    flip "$segment" "$seed" 8
    serve
    until_so "damaged journal, seed $seed: everything is folded" folded
    levels >after
    diff before after >differences || fail "damaged journal, seed $seed: $(head -5 differences)"
    api status | jq -r '.journal.lost[] | "records \(.from) to \(.to) are missing"' | sort >told
    [[ $(curl -fsS "http://$ADMIN_LISTEN/readyz") == ok ]] || fail "seed $seed: it does not serve"
    lost=$(api status | jq '[.journal.lost[] | select(.certain) | .to - .from + 1] | add // 0')
    [[ $(curl -fsS "http://$ADMIN_LISTEN/metrics" | awk '/^stockgate_journal_lost_records /{ print $2 }') == "$lost" ]] ||
        fail "seed $seed: the metric does not say $lost"
    stop_gateway
    "$LOAD" check --data "$DATA" --book "$BOOK" 2>&1 | grep -o 'records [0-9]* to [0-9]* are missing' | sort >missing || true
    # ranges that touch are one gap
    while read -r _ from _ to _; do
        awk -v a="$from" -v b="$to" '$2 >= a && $4 <= b { n += $4 - $2 + 1 } END { exit n != b - a + 1 }' told ||
            fail "seed $seed: records $from to $to are missing, and that is not what the status says: $(cat told)"
    done <missing
    lost_in_all=$((lost_in_all + lost))
done
compgen -G "$DATA/journal/*.damaged-*" >/dev/null || fail "no segment was set aside"
grep -q 'are lost to damage' gateway.log || fail "the loss is not in the log"
((lost_in_all > 0)) || fail "nothing was lost: the damage hit nothing"
echo "note: $(wc -l <before) levels, $rebuilt of 12 damaged states set aside and rebuilt, $lost_in_all journal records lost and told"
