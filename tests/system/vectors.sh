# The vendors' signature vectors hold under openssl, too: a vector that our code and our copy of it got wrong alike would show.
. "$(dirname "$0")/lib.bash"
vectors=$ROOT/tests/system/vectors.json

# hmac KEY-IN-HEX: base64 HMAC-SHA256 of standard input
hmac() {
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -binary | openssl base64 -A
}
hex() {
    od -An -v -tx1 | tr -d ' \n'
}

checked=0
for ((i = 0; i < $(jq length "$vectors"); i++)); do
    get() { jq -j ".[$i].$1 // \"\"" "$vectors"; }
    scheme=$(get scheme) value=$(get value)
    case $scheme in
    shopify | shippingbo | woocommerce)
        same "$scheme" "$value" "$(get body | hmac "$(get key | hex)")" ;;
    square)
        same "$scheme" "$value" "$({ get url; get body; } | hmac "$(get key | hex)")" ;;
    standard-webhooks)
        key=$(get key | sed 's/^whsec_//' | openssl base64 -d -A | hex)
        same "$scheme" "$value" "v1,$({ get id; printf .; get ts; printf .; get body; } | hmac "$key")" ;;
    bigcommerce)
        same "$scheme" "$value" "v1,$({ get id; printf .; get ts; printf .; get body; } | hmac "$(get key | hex)")" ;;
    ebay-challenge)
        same "$scheme" "$value" "$({ get body; get key; get url; } | openssl dgst -sha256 -r | cut -d' ' -f1)" ;;
    ebay-ecdsa-sha1)
        # one line as served: openssl wants the armour on lines of its own. No adapter: eBay sends no quantity.
        get key | sed 's/-----BEGIN PUBLIC KEY-----/&\n/; s/-----END PUBLIC KEY-----/\n&\n/' >key.pem
        openssl base64 -d -A <<<"$value" | jq -j .signature | openssl base64 -d -A >signature
        get body >body
        openssl dgst -sha1 -verify key.pem -signature signature body >/dev/null || fail "$scheme does not verify"
        printf ' ' >>body
        ! openssl dgst -sha1 -verify key.pem -signature signature body >/dev/null || fail "$scheme verifies another body" ;;
    *) fail "a vector of an unknown scheme: $scheme" ;;
    esac
    checked=$((checked + 1))
done
same "vectors" 11 "$checked"
