# Debian's Prometheus on a port of its own, and questions to its API. Sourced after lib.bash (and rig.bash for free_port).
PROMETHEUS=

# start_prometheus CONFIG PORT: returns when it is ready to answer; sets PROM, the URL
start_prometheus() {
    PROM=http://127.0.0.1:$2
    prometheus --config.file="$1" --web.listen-address="127.0.0.1:$2" --storage.tsdb.path=tsdb --log.level=warn >prometheus.log 2>&1 &
    PROMETHEUS=$!
    until_so "prometheus is ready: $(cat prometheus.log)" prometheus_ready
}

prometheus_ready() {
    curl -fsS --max-time 5 -o /dev/null "$PROM/-/ready" 2>/dev/null
}

stop_prometheus() {
    if [[ -n $PROMETHEUS ]]; then
        kill -TERM "$PROMETHEUS" 2>/dev/null || true
        wait "$PROMETHEUS" 2>/dev/null || true
        PROMETHEUS=
    fi
}
CLEANUP+=(stop_prometheus)

# query EXPR: the result of an instant query, as JSON
query() {
    curl -sS --fail-with-body --max-time 30 -G "$PROM/api/v1/query" --data-urlencode "query=$1" | jq -c .data.result
}

# number EXPR: the value of its only series; empty when there is none
number() {
    query "$1" | jq -r 'if length > 1 then error("more than one series") else .[0].value[1] // "" end'
}

# is EXPR VALUE: for until_so
is() {
    [[ $(number "$1") == "$2" ]]
}

# at_least EXPR N: for until_so
at_least() {
    [[ $(query "($1) >= $2" | jq length) != 0 ]]
}
