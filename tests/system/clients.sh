# curl and openssl as clients: every version of HTTP and TLS that platforms speak, and the certificate they see.
. "$(dirname "$0")/lib.bash"

start_gateway
secret=$(cat data/generic.secret)
n=0
# send ARGS..: a delivery of its own, signed
send() {
    n=$((n + 1))
    local body="{\"sku\":\"A-$n\",\"quantity\":$n}"
    deliver 200 /in/generic "$body" -H "x-delivery-id: d-$n" -H "x-stockgate-signature: $(printf %s "$body" | hmac "$secret" | hex_of)" "$@"
}

for version in --http1.0 --http1.1 --http2; do
    for tls in '--tlsv1.2 --tls-max 1.2' '--tlsv1.3'; do
        # shellcheck disable=SC2086 # two words on purpose
        send $version $tls
        spoken=$(curl -sS --max-time 30 --cacert data/tls-cert.pem $version $tls -o /dev/null -w '%{http_version}' "$PUBLIC/")
        case $version in
        --http2) same "$version $tls" 2 "$spoken" ;;
        *) [[ $spoken == 1 || $spoken == 1.1 ]] || fail "$version $tls: spoken is $spoken" ;;
        esac
    done
done
# with the question whether to go on, as curl asks before large bodies
send -H 'expect: 100-continue'
# in chunks
send -H 'transfer-encoding: chunked'

# answers that come before the body was read arrive all the same
head -c 2000000 /dev/zero >large
for version in --http1.1 --http2; do
    deliver 404 /in/nobody '{"sku":"A-1","quantity":1}' "$version"
    status=$(curl -sS --max-time 30 --cacert data/tls-cert.pem "$version" -o /dev/null -w '%{http_code}' \
        --data-binary @large "$PUBLIC/in/generic") || fail "$version: curl ends with $?"
    same "$version, too large" 413 "$status"
done
until_so "all is folded" folded
same "levels" "$n" "$(api 'stock?limit=100' | jq '.stock | length')"
same "the last level" "$n" "$(api "stock/main/A-$n" | jq .quantity)"

# the fingerprint that serve prints, of the file, and of the handshake are one
of_file=$(openssl x509 -in data/tls-cert.pem -noout -fingerprint -sha256 | cut -d= -f2)
hostport=${PUBLIC#https://}
of_handshake=$(openssl s_client -connect "$hostport" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256 | cut -d= -f2)
same "fingerprint of the handshake" "$of_file" "$of_handshake"
IFS= read -r line <&3
[[ $line == *"$of_file"* ]] || fail "serve prints '$line', the certificate is $of_file"
key=$(openssl x509 -in data/tls-cert.pem -noout -text)
[[ $key == *prime256v1* ]] || fail "not a P-256 certificate"
same "mode of the key" 600 "$(stat -c %a data/tls-key.pem)"
same "mode of the data directory" 700 "$(stat -c %a data)"

# old TLS is refused
if openssl s_client -tls1_1 -cipher 'ALL:@SECLEVEL=0' -connect "$hostport" </dev/null >old.tls 2>&1; then
    fail "TLS 1.1 is accepted"
fi
stop_gateway
