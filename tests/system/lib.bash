# What the system tests share. Sourced by each of them; run.sh's environment: BIN (the release binary), WORK (a scratch directory).
set -euo pipefail
: "${BIN:?run tests/system/run}" "${WORK:?run tests/system/run}"
cd "$WORK"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# same WHAT EXPECTED FOUND
same() {
    [[ $2 == "$3" ]] || fail "$1: expected '$2', found '$3'"
}

# write FILE: standard input into a file that only we can read
write() {
    (umask 077 && cat >"$1")
}

# Where the gateway listens and keeps its data, and what it runs under (strace and its options).
: "${LISTEN:=127.0.0.1:0}" "${ADMIN_LISTEN:=127.0.0.1:0}" "${DATA:=data}"
UNDER=()
GATEWAY=
stop_gateway() {
    if [[ -n $GATEWAY ]]; then
        kill -TERM "$GATEWAY" 2>/dev/null || true
        # it is a process substitution: bash lets us wait for it by its number
        wait "$GATEWAY" || fail "the gateway ended with $?: $(cat gateway.log)"
        GATEWAY=
    fi
}
kill_gateway() {
    if [[ -n $GATEWAY ]]; then
        kill -KILL "$GATEWAY" 2>/dev/null || true
        wait "$GATEWAY" 2>/dev/null || true
        GATEWAY=
    fi
}
# What a test leaves behind when it ends, however it ends; a test may add to it.
CLEANUP=(kill_gateway)
trap 'status=$?; for step in "${CLEANUP[@]}"; do $step || true; done; exit $status' EXIT

# start_gateway ARGS..: serve on free ports; sets GATEWAY (pid), PUBLIC and ADMIN (URLs). Returns when it listens.
start_gateway() {
    local line
    exec 3< <(exec "${UNDER[@]}" "$BIN" serve --listen "$LISTEN" --admin "$ADMIN_LISTEN" --data "$DATA" "$@" 2>gateway.log)
    GATEWAY=$!
    PUBLIC= ADMIN=
    while [[ -z $ADMIN ]] && IFS= read -r line <&3; do
        case $line in
        "listening on "*) PUBLIC=${line#listening on } ;;
        "admin on "*) ADMIN=${line#admin on } ;;
        esac
    done
    [[ -n $ADMIN ]] || fail "the gateway does not start: $(cat gateway.log)"
}

# api PATH: JSON from the admin listener
api() {
    curl -sS --fail-with-body --max-time 30 "$ADMIN/api/v1/$1"
}

# until_so WHAT COMMAND..: repeat a question until the answer is yes, for 60 s at most
until_so() {
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "never: $what"
    done
}

folded() {
    [[ $(api status | jq .fold.lag_records) == 0 ]]
}

# hmac KEY ALGORITHM: the tag over standard input, in binary
hmac() {
    openssl dgst "-${2:-sha256}" -mac HMAC -macopt "hexkey:$(printf %s "$1" | od -An -v -tx1 | tr -d ' \n')" -binary
}

base64_of() {
    openssl base64 -A
}

hex_of() {
    od -An -v -tx1 | tr -d ' \n'
}

# deliver STATUS PATH BODY CURL-ARGUMENTS..: POST the body as it is and check the answer's status
deliver() {
    local expected=$1 path=$2 body=$3 status
    shift 3
    status=$(printf %s "$body" | curl -sS --max-time 30 --cacert "$DATA/tls-cert.pem" -o answer.body -w '%{http_code}' \
        -X POST --data-binary @- -H 'expect:' "$@" "$PUBLIC$path")
    same "answer to $path" "$expected" "$status"
}
