# Each platform's published sample, sent by curl, signed by openssl: it lands as its contract says.
. "$(dirname "$0")/lib.bash"

exec 4< <(exec python3 "$ROOT/tests/system/platform-api")
api_pid=$!
trap 'status=$?; kill "$api_pid" 2>/dev/null; [[ -z $GATEWAY ]] || kill -KILL "$GATEWAY" 2>/dev/null || true; exit $status' EXIT
IFS= read -r port <&4
api_url=http://127.0.0.1:$port

# ---- one source of each kind ------------------------------------------------------------------------------------------
printf %s 'shpss_test_secret' | write shopify.secret
printf %s "a&b<c>\"d'" | write woo.secret
printf %s 'my_client_secret' | write shippingbo.secret
printf %s 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD' | write hooks.secret
printf %s 'the-bearer-of-cin7' | write cin7.secret
printf %s 'jetti-path-0123456789' | write jetti.path
printf %s 'kladana-path-0123456789' | write kladana.path
printf %s 'bsale-path-0123456789' | write bsale.path
printf %s 'kladana-api-token' | write kladana.token
printf %s 'bsale-api-token' | write bsale.token
write stockgate.toml <<TOML
[source.shopify]
kind = "shopify"
secret_file = "shopify.secret"
locations = { "53716844710" = "shopify" }
items = { "271878346596884015" = "GIFT-CARD" }
[source.woo]
kind = "woocommerce"
warehouse = "woo"
secret_file = "woo.secret"
[source.shippingbo]
kind = "shippingbo"
warehouse = "shippingbo"
secret_file = "shippingbo.secret"
[source.jetti]
kind = "jetti"
locations = { "11" = "jetti" }
token_file = "jetti.path"
[source.kladana]
kind = "kladana"
warehouse = "kladana"
report = "all"
token_file = "kladana.path"
[source.kladana.api]
base_url = "$api_url"
token_file = "kladana.token"
gather = "0s"
[source.bsale]
kind = "bsale"
locations = { "1" = "bsale-1", "2" = "bsale-2" }
token_file = "bsale.path"
[source.bsale.api]
base_url = "$api_url"
token_file = "bsale.token"
gather = "0s"
[source.hooks]
kind = "standard-webhooks"
warehouse = "hooks"
secret_file = "hooks.secret"
map = { sku = "/data/sku", quantity = "/data/quantity", time = "/timestamp" }
[source.cin7]
kind = "generic"
locations = { "Main Warehouse" = "cin7" }
secret_file = "cin7.secret"
signature = { algorithm = "token", header = "Authorization", prefix = "Bearer " }
map = { rows = "", item = "/ID", sku = "/SKU", location = "/Location", quantity = "/Available", combine = "sum" }
TOML
"$BIN" check --config stockgate.toml >check.out 2>&1 || fail "check: $(cat check.out)"
start_gateway --config stockgate.toml

# ---- what is sent before any signature --------------------------------------------------------------------------------
deliver 200 /in/woo 'webhook_id=17' -H 'content-type: application/x-www-form-urlencoded' --http1.0
pong=$(curl -sS --max-time 30 --cacert data/tls-cert.pem -w ' %{http_code}' "$PUBLIC/in/shippingbo")
[[ $pong == *" 200" ]] || fail "Shippingbo's GET: $pong"

# ---- the samples --------------------------------------------------------------------------------------------------------
shopify='{"inventory_item_id":271878346596884015,"location_id":53716844710,"available":null,"updated_at":"2020-09-03T08:44:10-04:00","admin_graphql_api_id":"gid:\/\/shopify\/InventoryLevel\/87892394150?inventory_item_id=271878346596884015"}'
tag=$(printf %s "$shopify" | hmac shpss_test_secret | base64_of)
same "Shopify's published vector" '4PZhrpQwbMy7BYcbZvviLXMJXuF0OlfUcVc9a38A7ho=' "$tag"
for attempt in first retry; do
    deliver 200 /in/shopify "$shopify" --http1.1 -H "X-Shopify-Hmac-Sha256: $tag" -H 'X-Shopify-Topic: inventory_levels/update' \
        -H 'X-Shopify-Shop-Domain: shop.myshopify.com' -H 'X-Shopify-API-Version: 2026-07' \
        -H 'X-Shopify-Webhook-Id: b54557e4-bdd9-4b37-8a5f-bf7d70bcd043' -H 'X-Shopify-Triggered-At: 2020-09-03T12:44:11Z'
done

woo='{"id":794,"sku":"woo-vneck-tee-red","manage_stock":true,"stock_quantity":9,"stock_status":"instock","date_modified_gmt":"2024-03-15T10:00:00"}'
tag=$(printf %s "$woo" | hmac "a&b<c>\"d'" | base64_of)
same "WooCommerce's vector" 'kpDw5C23Y5D/vtyu003xxlqkQKARV0TgAuZwLnSSA2o=' "$tag"
woo_headers=(-H 'X-WC-Webhook-Source: https://shop.example.com/' -H 'X-WC-Webhook-Topic: product.updated'
    -H 'X-WC-Webhook-Resource: product' -H 'X-WC-Webhook-Event: updated' -H 'X-WC-Webhook-ID: 17'
    -H 'X-WC-Webhook-Delivery-ID: 5e0cf9c0a6dd1ca56f0f6bdd21b0cbfd' -H 'Content-Type: application/json')
deliver 200 /in/woo "$woo" --http1.0 "${woo_headers[@]}" -H "X-WC-Webhook-Signature: $tag"
# the escaped secret, as WordPress stores it, is the wrong one
deliver 401 /in/woo "$woo" --http1.0 "${woo_headers[@]}" -H 'X-WC-Webhook-Signature: bBzLQ1MrEQAfkCMufqJ/PKu+YUh6JM2JbdZkLGgVgmQ='

shippingbo='{"object_class":"Product","object":{"id":922957134,"updated_at":"2022-06-30T14:53:00+00:00","user_ref":"sku-test-50","stock":-6,"total_physical_stock":0},"additional_data":{"field":"stock","from":10,"to":5},"hook_info":{}}'
tag=$(printf %s "$shippingbo" | hmac my_client_secret | base64_of)
same "Shippingbo's vector" 'Hv7rOxFk33uz28UJjF/PCzKDXUHRConnhRPCucf6Ctg=' "$tag"
deliver 200 /in/shippingbo "$shippingbo" -H "X-Shippingbo-Hmac-SHA256: $tag"

jetti='{"variant":{"id":10,"inventoryPolicy":"track"},"channelVariant":{"id":9,"companyId":11,"variantId":10,"channelId":21,"externalId":"123","externalGroupId":null,"externalSku":null,"source":"shopify","hash":null,"parentHash":null,"status":"pending","errorMessage":null,"inventoryUpdate":null,"priceUpdate":null,"publishUpdate":null,"costPriceUpdate":null,"createdAt":"2019-12-16T21:45:12.828Z","updatedAt":"2019-12-16T21:45:12.828Z","channel":{"shipstationUrl":"..","freeShippingThreshold":null,"hideWhenNoCostPrice":null,"id":21,"includeBackorderQuantity":true,"inventorySync":"all","parentChannel":"custom","unpublishNoInventory":false,"warehouseId":11,"warehouseSync":"default"}},"inventory":{"available":5}}'
deliver 200 /in/jetti/jetti-path-0123456789 "$jetti"
deliver 404 /in/jetti/jetti-path-0123456780 "$jetti"

kladana='{"accountId":"f71cb8b6-f7b5-11ec-ac12-000f000000eb","stockType":"stock","reportType":"all","reportUrl":"https://api.moysklad.ru/api/remap/1.2/report/stock/all/current?changedSince=2022-09-24 19:14:32"}'
deliver 204 '/in/kladana/kladana-path-0123456789?requestId=640569eb-522d-427a-b07e-fa757c5d4217' "$kladana" \
    -H 'User-Agent: MoySklad webhook touch agent 2.0'

bsale_stock='{"cpnId":2,"resource":"/v2/stocks.json?variant=7079&office=1","resourceId":"7079","topic":"stock","action":"put","officeId":"1","send":1503500856}'
bsale_document='{"cpnId":2,"resource":"/documents/14417.json","resourceId":"14417","topic":"document","action":"post","officeId":"2"}'
deliver 200 /in/bsale/bsale-path-0123456789 "$bsale_stock"
deliver 200 /in/bsale/bsale-path-0123456789 "$bsale_document"

# Standard Webhooks: the published vector first, then the same message with the time of now (the published one is too old)
key=$(printf %s 'C2FVsBQIhrscChlQIMV+b5sSYspob7oD' | openssl base64 -d -A | hex_of)
# standard ID TIME BODY: its tag
standard() {
    printf '%s.%s.%s' "$1" "$2" "$3" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64_of
}
sample='{"email":"test@example.com","username":"test_user"}'
same "Standard Webhooks' vector" 'tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=' \
    "$(standard msg_27UH4WbU6Z5A5EzD8u03UvzRbpk 1649367553 "$sample")"
deliver 401 /in/hooks "$sample" -H 'webhook-id: msg_27UH4WbU6Z5A5EzD8u03UvzRbpk' -H 'webhook-timestamp: 1649367553' \
    -H 'webhook-signature: v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw='
now=$(date +%s)
stock='{"type":"stock.changed","timestamp":"2026-11-20T10:00:00Z","data":{"sku":"HOOK-1","quantity":3.25}}'
for message in "msg_unreadable $sample" "msg_stock $stock"; do
    id=${message%% *} body=${message#* }
    deliver 200 /in/hooks "$body" -H "webhook-id: $id" -H "webhook-timestamp: $now" \
        -H "webhook-signature: v2,AAAA v1,$(standard "$id" "$now" "$body")"
done

cin7='[{"ID":"3bfdf57a-bbc7-4f09-ba28-9768a09e0a60","SKU":"Bread","Location":"Main Warehouse","Bin":null,"OnHand":497.0000,"Available":488.0000},{"ID":"3bfdf57a-bbc7-4f09-ba28-9768a09e0a60","SKU":"Bread","Location":"Main Warehouse","Bin":"Bin 1","OnHand":10.0000,"Available":8.0000}]'
deliver 200 /in/cin7 "$cin7" -H 'Authorization: Bearer the-bearer-of-cin7'

# ---- where they landed --------------------------------------------------------------------------------------------------
expected='bsale-1 KET-1 57.86
bsale-2 KET-2 -1.5
cin7 Bread 496
hooks HOOK-1 3.25
jetti 123 5
kladana 00042 46.5
shippingbo sku-test-50 -6
shopify GIFT-CARD untracked
woo woo-vneck-tee-red 9'
levels() {
    "$BIN" stock --json --limit 1000 --admin "$ADMIN" |
        jq -r '.stock[] | "\(.warehouse) \(.sku) \(if .state == "tracked" then .quantity else .state end)"' | sort
}
landed() {
    folded && [[ $(levels) == "$expected" ]] && [[ $(api sources | jq '[.sources[].fetch_tasks] | add') == 0 ]]
}
end=$((SECONDS + 60))
until landed; do
    ((SECONDS < end)) || fail "expected
$expected
found
$(levels)
$(api dead-letters | jq -c '.dead_letters[]')
$(cat platform-api.log)"
done

# the message that says nothing about stock is the only dead letter; the retry is known; the forgeries left nothing
same "dead letters" "hooks" "$("$BIN" dead list --json --admin "$ADMIN" | jq -r '.dead_letters[].source')"
figures=$(api sources | jq -r '.sources[] | "\(.source) \(.accepted) \(.duplicates) \(.conflicts)"' | sort)
same "deliveries" 'bsale 2 0 0
cin7 1 0 0
hooks 2 0 0
jetti 1 0 0
kladana 1 0 0
shippingbo 1 0 0
shopify 1 1 0
woo 1 0 0' "$figures"
"$BIN" explain woo-vneck-tee-red@woo --admin "$ADMIN" | head -1 | grep -q 'woo-vneck-tee-red in woo: 9' || fail "explain"
verified=$("$BIN" verify --admin "$ADMIN") || fail "verify: $verified"
stop_gateway
for secret in *.secret *.path *.token; do
    if grep -F -q -- "$(cat "$secret")" gateway.log; then
        fail "$secret is in the log"
    fi
done
replayed=$("$BIN" replay --data data) || fail "replay: $replayed"
