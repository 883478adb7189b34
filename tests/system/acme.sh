# Certificates from a real ACME server, Debian's pebble: a failing order that says why and waits, the first certificate by
# TLS-ALPN-01, its renewal, a server that has forgotten the account, a restart without an order, the same by HTTP-01, and servers
# that are none. pebble resolves names through pebble-challtestsrv; everything is on loopback.
. "$(dirname "$0")/lib.bash"

NAME=gate.example.com
free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
held = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
PYTHON
}
read -r acme_port manage_port dns_port dns_manage_port https_port http_port < <(free_ports 6)
LISTEN=127.0.0.1:$https_port

# pebble's own certificate, of an authority that only our configuration trusts
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=acme-ca -keyout ca.key -out ca.pem \
    -addext keyUsage=critical,keyCertSign 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout pebble.key -out pebble.csr 2>/dev/null
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >extensions
openssl x509 -req -in pebble.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile extensions -out pebble.pem 2>/dev/null

PEBBLE= DNS=
stop_pebble() {
    [[ -z $PEBBLE ]] || { kill "$PEBBLE" && wait "$PEBBLE" || true; }
    PEBBLE=
}
stop_dns() {
    [[ -z $DNS ]] || { kill "$DNS" && wait "$DNS" || true; }
    DNS=
}
CLEANUP+=(stop_pebble stop_dns)
pebble_answers() {
    curl -sS --max-time 5 --cacert ca.pem -o /dev/null "https://localhost:$acme_port/dir" 2>/dev/null &&
        curl -sS --max-time 5 --cacert ca.pem -o root.pem "https://localhost:$manage_port/roots/0" 2>/dev/null
}
# start_pebble SECONDS: certificates live so long. It begins with no account, no order and a new root.
start_pebble() {
    printf '{"pebble":{"listenAddress":"127.0.0.1:%d","managementListenAddress":"127.0.0.1:%d","certificate":"pebble.pem",
        "privateKey":"pebble.key","httpPort":%d,"tlsPort":%d,"certificateValidityPeriod":%d}}' \
        "$acme_port" "$manage_port" "$http_port" "$https_port" "$1" >pebble.json
    PEBBLE_VA_NOSLEEP=1 PEBBLE_AUTHZREUSE=0 pebble -config pebble.json -dnsserver "127.0.0.1:$dns_port" >pebble.log 2>&1 &
    PEBBLE=$!
    until_so "pebble answers" pebble_answers
}
# names_lead_to ADDRESS
names_lead_to() {
    curl -sS --max-time 5 --fail -d "{\"ip\":\"$1\"}" "http://127.0.0.1:$dns_manage_port/set-default-ipv4" 2>/dev/null
}
# what it has taken: of the requests for them it refuses one in twenty, as if its nonce were bad, and those are sent again
orders() {
    grep -c 'Added order ' pebble.log || true
}
# acme EXPRESSION: of how it stands
acme() {
    api status | jq -r ".certificate.acme | $1"
}
succeeded() {
    [[ $(acme .last_success) != null ]]
}
failed_once() {
    [[ $(acme .failures) == 1 ]]
}
metric() {
    curl -sS --max-time 30 "$ADMIN/metrics" | sed -n "s/^$1 //p"
}
# shown: what a stranger who trusts only pebble's root gets at the public listener; the leaf's serial number
shown() {
    openssl s_client -connect "127.0.0.1:$https_port" -servername "$NAME" -CAfile root.pem -verify_return_error \
        -verify_hostname "$NAME" </dev/null 2>s_client.err | openssl x509 -noout -serial 2>/dev/null
}
# configured FILE LINES..: a configuration whose [tls.acme] has these lines besides
configured() {
    local file=$1
    shift
    {
        printf '[tls]\nnames = ["%s", "localhost", "127.0.0.1"]\n[tls.acme]\nterms_agreed = true\n' "$NAME"
        printf '%s\n' "$@"
        printf '[source.shop]\nkind = "woocommerce"\nwarehouse = "main"\nsecret_file = "shop.secret"\n'
    } >"$file"
}
printf hushhush | write shop.secret
directory="directory = \"https://localhost:$acme_port/dir\""

pebble-challtestsrv -defaultIPv6 "" -dns01 "127.0.0.1:$dns_port" -http01 "" -https01 "" -tlsalpn01 "" \
    -management "127.0.0.1:$dns_manage_port" >dns.log 2>&1 &
DNS=$!
# nobody listens there
until_so "the name server answers" names_lead_to 127.0.0.9
start_pebble 30

# ---- a name that leads elsewhere: it is told, and not tried again soon
configured alpn.toml "$directory" 'ca_file = "ca.pem"' 'contact = ["ops@example.com"]'
start_gateway --config alpn.toml
until_so "the attempt fails" failed_once
same "the reason" challenge "$(acme .last_failure.reason)"
[[ $(acme .last_failure.message) == *"$NAME is not proven"*127.0.0.9* ]] || fail "$(acme .last_failure)"
same "in the metrics" 1 "$(metric 'stockgate_acme_failures_total{reason="challenge"}')"
wait=$(($(date -d "$(acme .next_attempt)" +%s) - $(date +%s)))
((wait > 200 && wait <= 600)) || fail "the next attempt is in $wait s"
grep -q "no certificate: .*$NAME is not proven.*port 443" gateway.log || fail "the log: $(cat gateway.log)"
said=$("$BIN" doctor --config alpn.toml --data "$DATA" --admin "$ADMIN" || true)
grep -A1 -E '^fail  acme ' <<<"$said" | grep -q 'stockgate reload' || fail "doctor: $said"
grep -q "not ready" <<<"$(curl -sS "$ADMIN/readyz")" && fail "deliveries must not wait for it"
same "serves meanwhile" true "$(api status | jq .certificate.self_made)"
stop_gateway
start_gateway --config alpn.toml
until_so "how it stands is read" failed_once
same "orders after a restart" 1 "$(orders)"

# ---- mended: a reload asks at once, and what is served is of pebble's root
names_lead_to 127.0.0.1
"$BIN" reload --admin "$ADMIN" >/dev/null
until_so "the certificate comes" succeeded
first=$(shown) || fail "$(cat s_client.err)"
same "self-made" false "$(api status | jq .certificate.self_made)"
same "failures" 0 "$(acme .failures)"
same "an unsigned delivery by a sender who trusts the root" 401 "$(curl -sS --max-time 30 --cacert root.pem -o /dev/null \
    -w '%{http_code}' --resolve "$NAME:$https_port:127.0.0.1" -d '{}' "https://$NAME:$https_port/in/shop")"
for file in "$DATA"/acme/*; do
    same "mode of $file" 600 "$(stat -c %a "$file")"
done
grep -q BEGIN gateway.log && fail "a key or a certificate is in the log"

# ---- due: half of thirty seconds later there is another, for the connections to come
renewed() {
    local now
    now=$(shown) && [[ -n $now && $now != "$first" ]]
}
until_so "it is renewed" renewed
(($(metric stockgate_acme_last_success_timestamp_seconds | cut -d. -f1) > 0)) || fail "no time of the last success"
ratio=$(metric 'stockgate_tls_certificate_lifetime_remaining_ratio{listener="public"}')
awk -v r="$ratio" 'BEGIN { exit !(r > 0.3 && r <= 1) }' || fail "share of its lifetime left: $ratio"

# ---- the server has forgotten everything: a new account, and this time a certificate for ninety days
stop_pebble
start_pebble 7776000
forgotten() {
    grep -q 'does not know the account' gateway.log && shown >/dev/null
}
until_so "another account is made" forgotten
before=$(shown)
asked=$(orders)
stop_gateway

# ---- a restart serves what was kept, and orders nothing
start_gateway --config alpn.toml
same "after the restart" "$before" "$(shown)"
planned() {
    [[ $(acme .next_attempt) != null ]]
}
until_so "the renewal is planned" planned
days=$((($(date -d "$(acme .next_attempt)" +%s) - $(date +%s)) / 86400))
((days >= 54 && days <= 60)) || fail "the renewal is in $days days"
same "orders" "$asked" "$(orders)"
stop_gateway

# ---- the same by HTTP-01
DATA=data-http
configured http.toml "$directory" 'ca_file = "ca.pem"' 'challenge = "http-01"' "http_address = \"127.0.0.1:$http_port\""
start_gateway --config http.toml
until_so "the certificate comes by HTTP-01" succeeded
shown >/dev/null || fail "$(cat s_client.err)"
(($(metric 'stockgate_http_requests_total{listener="acme",code="200"}') > 0)) || fail "pebble asked for no token"
for path in / /in/shop /metrics /.well-known/acme-challenge/none; do
    same "plain $path" "404 0" "$(curl -sS --max-time 5 -o /dev/null -w '%{http_code} %{size_download}' "http://127.0.0.1:$http_port$path")"
done
stop_gateway

# ---- servers that are none
fails_with() {
    DATA=data-$1
    configured "$1.toml" "$2" "${3:-}"
    start_gateway --config "$1.toml"
    until_so "the attempt fails" failed_once
    same "the reason" "$1" "$(acme .last_failure.reason)"
    stop_gateway
}
fails_with directory "directory = \"https://localhost:$acme_port/nonce-plz\"" 'ca_file = "ca.pem"'
# its authority is not the system's
fails_with unreachable "$directory"
grep -q 'UnknownIssuer' gateway.log || fail "$(cat gateway.log)"

echo "note: orders, renewal, restart, both challenges"
