# An operator's certificate is replaced on disk: half of a pair is not taken and said once, the whole is, by handshakes to come;
# a connection that was open goes on.
. "$(dirname "$0")/lib.bash"

# pair NAME: NAME.crt and NAME.key
pair() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj "/CN=$1" -addext subjectAltName=DNS:localhost \
        -keyout "$1.key" -out "$1.crt" 2>/dev/null
}
pair old
pair new
mkdir live-1 live-2
cp old.crt live-1/tls.crt && cp old.key live-1/tls.key
ln -s live-1 live
printf hushhush | write shop.secret
cat >stockgate.toml <<'END'
[tls]
certificate = "live/tls.crt"
key = "live/tls.key"
[source.shop]
kind = "woocommerce"
warehouse = "main"
secret_file = "shop.secret"
END
start_gateway --config stockgate.toml
host=${PUBLIC#https://}
served() {
    openssl s_client -connect "$host" -servername localhost </dev/null 2>/dev/null | openssl x509 -noout -subject -nameopt RFC2253
}
metric() {
    curl -sS --max-time 30 "$ADMIN/metrics" | sed -n "s/^$1 //p"
}
serves() {
    [[ $(served) == "subject=CN=$1" ]]
}
serves old || fail "$(served)"

# a connection of an operator's client, open over all that follows
coproc OPEN { openssl s_client -quiet -connect "$host" -servername localhost -alpn http/1.1 2>/dev/null; }
answered() {
    local line
    printf 'GET /none HTTP/1.1\r\nhost: localhost\r\n\r\n' >&"${OPEN[1]}"
    IFS= read -r -t 30 line <&"${OPEN[0]}" || fail "the open connection is gone"
    same "on the open connection" $'HTTP/1.1 404 Not Found\r' "$line"
    # the rest of the answer: its end is an empty line, its body is empty
    while IFS= read -r -t 30 line <&"${OPEN[0]}" && [[ $line != $'\r' ]]; do :; done
}
answered

# ---- half a pair
cp new.crt live-1/tls.crt
refused() {
    [[ $(metric 'stockgate_tls_certificate_refused{listener="public"}') == 1 ]]
}
until_so "half a pair is noticed" refused
serves old || fail "half a pair is served: $(served)"
same "readiness" ok "$(curl -sS --max-time 30 "$ADMIN/readyz")"
[[ $(api status | jq -r .certificate.refused) == *"does not belong"* ]] || fail "$(api status)"
looked=$(metric 'stockgate_tls_certificate_reloads_total{listener="public",outcome="mismatch"}')
same "told once" "1 1" "$looked $(grep -c 'cannot be used: the one before stays' gateway.log)"

# ---- the whole pair, by a link that moves
cp new.crt live-2/tls.crt && cp new.key live-2/tls.key
ln -s live-2 live-next && mv -T live-next live
until_so "the new pair is served" serves new
same "refused" 0 "$(metric 'stockgate_tls_certificate_refused{listener="public"}')"
same "taken" 1 "$(metric 'stockgate_tls_certificate_reloads_total{listener="public",outcome="ok"}')"
same "still told once" 1 "$(metric 'stockgate_tls_certificate_reloads_total{listener="public",outcome="mismatch"}')"
answered
eval "exec ${OPEN[1]}>&-"
stop_gateway
echo "note: half a pair is kept out, a whole one is taken, an open connection goes on"
