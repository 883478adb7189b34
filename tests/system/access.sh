# Who may deliver and who may ask, with other people's programs: certificates and lists made by openssl, curl as the client, nginx as
# the proxy in front, Prometheus' way of showing a token.
. "$(dirname "$0")/lib.bash"

# ---- certificates of clients: an authority with an index, as `openssl ca` keeps it --------------------------------------
mkdir ca
touch ca/index.txt
echo 01 >ca/number
write ca.cnf <<'CNF'
[ca]
default_ca = own
[own]
database = ca/index.txt
serial = ca/serial
crlnumber = ca/number
new_certs_dir = ca
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
x509_extensions = client
[any]
commonName = supplied
[client]
basicConstraints = CA:false
extendedKeyUsage = clientAuth
CNF
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
ca() {
    openssl ca -batch -config ca.cnf "$@" 2>ca.log || fail "openssl ca $*: $(cat ca.log)"
}
openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -days 30 -subj "/CN=the warehouse's authority" 2>/dev/null
openssl req -x509 "${key[@]}" -keyout stranger.key -out stranger.pem -days 30 -subj "/CN=wms" 2>/dev/null
for client in wms lost other; do
    openssl req -new "${key[@]}" -keyout $client.key -out $client.csr -subj "/CN=$client" 2>/dev/null
    ca -create_serial -notext -in $client.csr -out $client.pem
done
ca -gencrl -out ca.crl

echo 'a-secret-for-this-test-alone' >gen.secret
chmod 600 gen.secret
source_table() {
    cat <<'TOML'
kind = "generic"
warehouse = "main"
secret_file = "gen.secret"
identity = { header = "x-delivery-id" }
signature = { algorithm = "hmac-sha256", encoding = "hex", header = "x-signature", signed = "{body}" }
map = { sku = "/sku", quantity = "/quantity" }
TOML
}
write stockgate.toml <<TOML
[listen]
proxy_protocol_from = ["127.0.0.2"]
[admin]
tls = true
tokens = "required"
[source.gen]
client_ca_file = "ca.pem"
client_crl_file = "ca.crl"
client_names = ["wms", "lost"]
$(source_table)
[source.open]
allow = ["127.0.0.1", "127.0.0.2"]
$(source_table)
TOML

# ---- tokens, before the first start ------------------------------------------------------------------------------------
if "$BIN" serve --config stockgate.toml --data data --listen 127.0.0.1:0 --admin 127.0.0.1:0 >out 2>&1; then
    fail "it starts without a token where tokens are required"
fi
grep -q 'stockgate token new' out || fail "it does not say what to do: $(cat out)"
"$BIN" token new --role read --name prometheus --expires 1d --data data >read.token 2>said
"$BIN" token new --role operator --name ops --data data >ops.token 2>said
chmod 600 -- *.token
same "mode of the tokens" 600 "$(stat -c %a data/admin-tokens.json)"
grep -qF "$(cat ops.token)" data/admin-tokens.json && fail "the token itself is kept"

start_gateway --config stockgate.toml
[[ $ADMIN == https://* ]] || fail "the admin listener is at $ADMIN"

# send STATUS PATH CURL-ARGUMENTS..: a signed delivery
n=0
send() {
    n=$((n + 1))
    local expected=$1 path=$2 body="{\"sku\":\"A-$n\",\"quantity\":$n}"
    shift 2
    deliver "$expected" "$path" "$body" -H "x-delivery-id: d-$n" \
        -H "x-signature: $(printf %s "$body" | hmac "$(cat gen.secret)" | hex_of)" "$@"
}

for tls in '--tlsv1.2 --tls-max 1.2' '--tlsv1.3'; do
    # shellcheck disable=SC2086 # two words on purpose
    for version in --http1.1 --http2; do
        send 200 /in/gen --cert wms.pem --key wms.key $tls $version
        same "of the answer to a refused one" "" "$(send 403 /in/gen $tls $version && cat answer.body)"
        send 403 /in/gen --cert stranger.pem --key stranger.key $tls $version
        send 403 /in/gen --cert other.pem --key other.key $tls $version
        # a source that wants none: with none, with ours, with somebody else's
        send 200 /in/open $tls $version
        send 200 /in/open --cert stranger.pem --key stranger.key $tls $version
    done
done
send 200 /in/gen --cert lost.pem --key lost.key

# a certificate is revoked: from the reload on it is refused
ask() {
    local token=$1 path=$2
    shift 2
    curl -sS --max-time 30 --cacert data/tls-cert.pem ${token:+-H "authorization: Bearer $(cat "$token")"} -o asked -w '%{http_code}' "$@" "$ADMIN$path"
}
cli() {
    "$BIN" "$@" --admin "$ADMIN" --ca-file data/tls-cert.pem --token-file ops.token
}
ca -revoke lost.pem
ca -gencrl -out ca.crl
send 200 /in/gen --cert lost.pem --key lost.key
cli reload >reloaded
send 403 /in/gen --cert lost.pem --key lost.key
send 200 /in/gen --cert wms.pem --key wms.key
# the list expires: nobody is taken, until there is a new one
ca -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z -out ca.crl
cli reload >reloaded
send 403 /in/gen --cert wms.pem --key wms.key
ca -gencrl -out ca.crl
cli reload >reloaded
send 200 /in/gen --cert wms.pem --key wms.key
metric() {
    curl -sS --cacert data/tls-cert.pem -H "authorization: Bearer $(cat read.token)" "$ADMIN/metrics" | grep -F "$1 " | sed 's/.* //'
}
refused='stockgate_client_certificates_refused_total{source="gen",reason='
same "missing" 4 "$(metric "$refused\"missing\"}")"
# openssl makes self-signed certificates for authorities, and an authority is no client
same "self-made ones" 4 "$(metric "$refused\"unusable\"}")"
same "names" 4 "$(metric "$refused\"name\"}")"
same "revoked" 1 "$(metric "$refused\"revoked\"}")"
same "with an expired list" 1 "$(metric "$refused\"crl-expired\"}")"

# ---- who may ask --------------------------------------------------------------------------------------------------------
same "livez without a token" 200 "$(ask '' /livez)"
same "metrics without a token" 401 "$(ask '' /metrics -D headers)"
grep -qi '^www-authenticate: Bearer' headers || fail "no challenge: $(cat headers)"
same "the problem's status" 401 "$(jq .status asked)"
same "metrics with a token" 200 "$(ask read.token /metrics)"
same "reload with a token to read" 403 "$(ask read.token /api/v1/reload -X POST)"
same "raw deliveries with a token to read" 403 "$(ask read.token /api/v1/backup -X POST)"
same "raw deliveries with a token to operate" 200 "$(ask ops.token /api/v1/backup -X POST)"
cli backup copy >backed-up
if curl -sS --max-time 10 "http://${ADMIN#https://}/livez" >plain 2>&1; then
    grep -q '^ok' plain && fail "it speaks plain HTTP"
fi
"$BIN" token revoke prometheus --data data 2>said
same "a revoked token" 401 "$(ask read.token /metrics)"
"$BIN" token list --data data | grep -q '^ops  *operator' || fail "the list: $("$BIN" token list --data data)"

# ---- a proxy in front ---------------------------------------------------------------------------------------------------
# curl names itself, so the header is true; it is expected from the listed address alone
send 200 /in/open --interface 127.0.0.2 --haproxy-protocol
if curl -sS --max-time 10 --cacert data/tls-cert.pem --interface 127.0.0.2 "$PUBLIC/" >out 2>&1; then
    fail "a listed proxy without a header is served"
fi
if curl -sS --max-time 10 --cacert data/tls-cert.pem --haproxy-protocol "$PUBLIC/" >out 2>&1; then
    fail "a header from anybody is taken"
fi

# nginx passes TLS on, and says who the client is; a delivery with a client certificate passes through it as well
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
module=$(find "${NGINX_MODULES:-/usr/lib/nginx/modules}" -name ngx_stream_module.so)
write nginx.conf <<CONF
load_module $module;
pid $WORK/nginx.pid;
error_log $WORK/nginx.log;
daemon off;
events {}
stream {
    server {
        listen 127.0.0.1:$port;
        proxy_bind 127.0.0.2;
        proxy_protocol on;
        proxy_pass ${PUBLIC#https://};
    }
}
CONF
"${NGINX:-nginx}" -e "$WORK/nginx.log" -c "$WORK/nginx.conf" &
NGINX_PID=$!
stop_nginx() {
    [[ -z $NGINX_PID ]] || kill -TERM "$NGINX_PID" 2>/dev/null || true
}
CLEANUP+=(stop_nginx)
listens() {
    (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null
}
until_so "nginx listens: $(cat nginx.log 2>/dev/null)" listens
DIRECT=$PUBLIC
PUBLIC=https://127.0.0.1:$port
send 200 /in/open
send 200 /in/gen --cert wms.pem --key wms.key
# the client's own address counts, not nginx's
send 404 /in/open --interface 127.0.0.3
PUBLIC=$DIRECT
stop_nginx
wait "$NGINX_PID" || true
NGINX_PID=
# a proxy that nobody has listed
grep -q 'peer=127.0.0.2' gateway.log && fail "the proxy's address stands for a client's"

# no token, key or secret has found its way into the log
stop_gateway
for secret in ops.token read.token gen.secret; do
    grep -qF "$(cat $secret)" gateway.log && fail "$secret is in the log"
done
echo "note: $n deliveries, one authority, two lists of revoked certificates, nginx in front"
