# Under systemd: sockets from systemd-socket-activate, a watchdog that a disk which hangs can silence, and a sandbox that takes
# system calls, /proc and the rest away. (The package's own test runs it under systemd itself.)
. "$(dirname "$0")/lib.bash"
. "$(dirname "$0")/rig.bash"
here=$(cd "$(dirname "$0")" && pwd)
for program in systemd-socket-activate systemd-analyze strace fsfreeze unshare; do
    command -v "$program" >/dev/null || fail "this test needs $program"
done

READER=
stop_reader() {
    if [[ -n $READER ]]; then
        kill "$READER" 2>/dev/null || true
        wait "$READER" 2>/dev/null || true
        READER=
    fi
}
CLEANUP+=(stop_reader)

# A service manager that listens; what it is told is in told.lines
start_reader() {
    rm -f notify told.lines
    python3 "$here/notify-reader" "$WORK/notify" told &
    READER=$!
    until_so "the reader is there" test -e told.lines
}

told() {
    grep -qx "$1" told.lines
}

signs() {
    grep -cx WATCHDOG=1 told.lines || true
}

# ---- both sockets are passed -----------------------------------------------------------------------------------------------
start_reader
https=$(free_port 1) admin=$(free_port 2)
NOTIFY_SOCKET=$WORK/notify systemd-socket-activate -E NOTIFY_SOCKET -l "127.0.0.1:$https" -l "127.0.0.1:$admin" \
    --fdname=https:admin "$BIN" serve --data data >activated.out 2>gateway.log &
GATEWAY=$!
listens() {
    grep -q "Listening on 127.0.0.1:$admin" gateway.log
}
until_so "systemd-socket-activate listens" listens
# the first connection starts it, and waits
same "the admin socket" 200 "$(curl -sS --max-time 60 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$admin/readyz")"
PUBLIC=https://127.0.0.1:$https ADMIN=http://127.0.0.1:$admin
until_so "told that it is ready" told READY=1
body='{"sku":"A-1","quantity":5}'
tag=$(printf %s "$body" | hmac "$(cat data/generic.secret)" | hex_of)
deliver 200 /in/generic "$body" -H "x-delivery-id: d-1" -H "x-stockgate-signature: $tag"
until_so "it is folded" folded
same "the level" 5 "$(api stock/main/A-1 | jq .quantity)"
grep -q "socket that was passed is used" gateway.log || fail "the log does not say which socket is used: $(cat gateway.log)"
"$BIN" reload --admin "$ADMIN" >reloaded 2>&1 || fail "reload: $(cat reloaded)"
until_so "told of the reload" told RELOADING=1
stop_gateway
until_so "told of the stop" told STOPPING=1
stop_reader

# ---- a disk that hangs silences the watchdog ---------------------------------------------------------------------------------
FROZEN=
thaw() {
    if [[ -n $FROZEN ]]; then
        fsfreeze -u disk
        FROZEN=
    fi
}
# before anything that has to write there
CLEANUP=(thaw "${CLEANUP[@]}")
make_disk 256
start_reader
UNDER=(env "NOTIFY_SOCKET=$WORK/notify" WATCHDOG_USEC=1000000)
start_gateway
alive() {
    (($(signs) >= 3))
}
until_so "it shows that it is alive" alive
tag=$(printf %s "$body" | hmac "$(cat disk/data/generic.secret)" | hex_of)
certificate=$(cat disk/data/tls-cert.pem)
fsfreeze -f disk
FROZEN=1
(printf %s "$body" | curl -sS --max-time 60 --cacert <(echo "$certificate") -o frozen.body -w '%{http_code}' -X POST \
    --data-binary @- -H 'expect:' -H "x-delivery-id: d-2" -H "x-stockgate-signature: $tag" "$PUBLIC/in/generic" >frozen.status) &
sender=$!
hangs() {
    grep -q 'does not go on.*journal' gateway.log
}
until_so "the log says which thread hangs" hangs
before=$(signs)
# the time itself is tested: three periods, in each of which at least one sign was due
sleep 3
same "signs of life while the disk hangs" "$before" "$(signs)"
[[ ! -s frozen.status ]] || fail "a delivery was answered while the disk hangs: $(cat frozen.status)"
thaw
wait "$sender" || fail "the delivery was not answered in the end"
same "the delivery, once the disk goes on" 200 "$(cat frozen.status)"
resumed() {
    (($(signs) > before + 2))
}
until_so "it shows again that it is alive" resumed
stop_gateway
stop_reader
unmount_disk
UNDER=()
DATA=data

# ---- what the sandbox takes away is not used -----------------------------------------------------------------------------------
# the names of a filter set, its parts expanded
names_of() {
    systemd-analyze syscall-filter "$1" | sed -n 's/^    \([@a-z][a-z0-9_-]*\)$/\1/p' | while IFS= read -r name; do
        if [[ $name == @* ]]; then names_of "$name"; else echo "$name"; fi
    done
}
# all of it: a first start with its certificate, deliveries, a checkpoint, a reload, answers of every sort, a stop
UNDER=(strace -D -f -qq -s 200 -o calls)
DATA=traced
start_gateway
tag=$(printf %s "$body" | hmac "$(cat traced/generic.secret)" | hex_of)
deliver 200 /in/generic "$body" -H "x-delivery-id: d-1" -H "x-stockgate-signature: $tag"
until_so "it is folded" folded
"$BIN" reload --admin "$ADMIN" >reloaded 2>&1 || fail "reload: $(cat reloaded)"
curl -sS --fail --max-time 30 -o /dev/null "$ADMIN/metrics"
"$BIN" backup --admin "$ADMIN" copy >/dev/null 2>&1 || fail "backup"
stop_gateway
UNDER=()
sed -n 's/^[0-9]* *\([a-z_0-9]*\)(.*/\1/p' calls | sort -u >used
(($(wc -l <used) > 30)) || fail "the trace holds next to nothing: $(cat used)"
grep -qx fdatasync used || fail "the trace misses what it must do: $(cat used)"
comm -23 <(names_of @system-service | sort -u) <({ names_of @privileged; names_of @resources; } | sort -u) >allowed
# the filter never denies these, the kernel itself makes or needs them
printf '%s\n' execve exit exit_group rt_sigreturn sigreturn restart_syscall >>allowed
denied=$(comm -23 used <(sort -u allowed))
[[ -z $denied ]] || fail "system calls that @system-service without @privileged and @resources denies: $denied"
! grep -E 'm(map|protect|remap)\(.*PROT_WRITE\|PROT_EXEC|mprotect\(.*PROT_EXEC' calls ||
    fail "memory that can be written and executed: MemoryDenyWriteExecute= would refuse it"

# /proc with nothing but processes, no home, nothing in the environment, no capability, an unprivileged user
cat >inner.sh <<'INNER'
set -eu
mount -t proc -o subset=pid,hidepid=invisible proc /proc
[ ! -e /proc/meminfo ] && [ ! -e /proc/stat ]
# the scratch directory is for root only
mount -t tmpfs -o mode=755,size=256M box /mnt
cp "$BOXED" /mnt/stockgate
install -d -o 65534 -g 65534 -m 700 /mnt/data
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all env -i "$@"
INNER
UNDER=(env "BOXED=$BIN" unshare --mount --pid --fork --kill-child=SIGTERM sh inner.sh)
BIN=/mnt/stockgate DATA=/mnt/data start_gateway
resident=$(curl -sS --fail --max-time 30 "$ADMIN/metrics" | sed -n 's/^process_resident_memory_bytes //p')
((${resident%%.*} > 1000000)) || fail "the process's own figures: '$resident'"
same "ready in the box" 200 "$(curl -sS -o /dev/null -w '%{http_code}' "$ADMIN/readyz")"
# unshare waits for its child, which has a number of its own
kill -TERM "$(pgrep -P "$GATEWAY")"
wait "$GATEWAY" || fail "it ended with $?: $(cat gateway.log)"
GATEWAY=
echo "note: $(wc -l <used) system calls"
