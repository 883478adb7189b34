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
echo "note: $(wc -l <before) levels, $rebuilt of 12 damaged states set aside and rebuilt"
