# A gateway under the load of the simulated platforms, on a disk of its own that can be taken away. Sourced after lib.bash;
# needs LOAD (the sender, see prepare.bash) and root.
: "${LOAD:?run tests/system/run}"

# A port that nothing uses, outside the range of outgoing connections: a sender that asks for a gateway that is away must not
# be connected to itself.
free_port() {
    python3 - "$1" <<'PY'
import random, socket, sys
chosen = random.Random(int(sys.argv[1]) ^ __import__("os").getpid())
while True:
    port = chosen.randrange(20000, 30000)
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
PY
}

BOOK=$WORK/book
SENDER=

# start_load SEED ARGS..: the platforms begin to deliver as soon as a gateway is there, and go on until stop_load
start_load() {
    local seed=$1 line
    shift
    LISTEN=127.0.0.1:$(free_port $((seed * 2)))
    ADMIN_LISTEN=127.0.0.1:$(free_port $((seed * 2 + 1)))
    mkdir -p site
    exec 4< <(exec "$LOAD" run --site site --data "$DATA" --book "$BOOK" --listen "$LISTEN" --admin "$ADMIN_LISTEN" \
        --seed "$seed" "$@" 2>load.log)
    SENDER=$!
    IFS= read -r line <&4 || fail "the sender does not start: $(tail -20 load.log)"
}

# The platforms deliver what is owed and wait until every level is what they say; what they have seen is in SEEN.
stop_load() {
    kill -TERM "$SENDER"
    wait "$SENDER" || fail "the platforms do not agree: $(tail -20 load.log)"
    SENDER=
    IFS= read -r SEEN <&4
}

kill_load() {
    if [[ -n $SENDER ]]; then
        kill -KILL "$SENDER" 2>/dev/null || true
        wait "$SENDER" 2>/dev/null || true
        SENDER=
    fi
}

# serve: the gateway that the platforms deliver to
serve() {
    start_gateway --config site/stockgate.toml "$@"
}

acknowledged() {
    grep -c ^A "$BOOK" || true
}

# acknowledged_more N: wait until so many more deliveries are acknowledged
acknowledged_more() {
    local goal=$(($(acknowledged) + $1))
    enough() {
        (($(acknowledged) >= goal))
    }
    until_so "$1 more deliveries are acknowledged: $(tail -3 gateway.log)" enough
}

# judge: hold the data of a stopped gateway against the book. With an argument: fold the journal again, too
judge() {
    "$LOAD" check --data "$DATA" --book "$BOOK" >judged 2>&1 || fail "$(cat judged)"
    "$BIN" verify --data "$DATA" >verified 2>&1 || fail "verify: $(cat verified)"
    if (($#)); then
        "$BIN" replay --data "$DATA" >replayed 2>&1 || fail "replay: $(cat replayed)"
    fi
}

# ---- the disk -----------------------------------------------------------------------------------------------------------

MOUNTED=

# make_disk MIB: an ext4 file system in a file, mounted at $WORK/disk; the gateway's data goes there
make_disk() {
    ((EUID == 0)) || fail "a loop mount needs root"
    truncate -s "$1M" disk.img
    mkfs.ext4 -q -F disk.img
    mkdir -p disk
    mount_disk
    DATA=$WORK/disk/data
}

mount_disk() {
    mount -o loop disk.img disk || fail "this kernel has no loop device or no ext4: the power tests need both"
    MOUNTED=1
    [[ $(stat -c %d disk) != $(stat -c %d /) ]] || fail "the disk is not mounted"
}

unmount_disk() {
    if [[ -n $MOUNTED ]]; then
        umount disk
        MOUNTED=
    fi
}

# Cut the power: nothing more reaches the disk, and what the file system's journal had not written is gone
# (EXT4_IOC_SHUTDOWN with NOLOGFLUSH). Never on the disk that holds the root.
cut_power() {
    python3 - disk <<'PY' || fail "EXT4_IOC_SHUTDOWN failed: the power tests need it"
import fcntl, os, struct, sys
disk = os.open(sys.argv[1], os.O_RDONLY)
if os.fstat(disk).st_dev == os.stat("/").st_dev:
    sys.exit("this is the root file system")
fcntl.ioctl(disk, 0x8004587D, struct.pack("I", 2))
PY
}

# Something of ours may still be reading there when a test is ended from outside.
leave_disk() {
    [[ -z $MOUNTED ]] || umount -l disk
}

CLEANUP+=(kill_load leave_disk)
