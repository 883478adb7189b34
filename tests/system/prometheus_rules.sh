# The rules that are shipped: promtool finds no fault, and every case for every alert holds. That each alert has a case that fires
# and one that does not is kept by tests/it/watching.rs.
. "$(dirname "$0")/lib.bash"

rules=$ROOT/packaging/prometheus
promtool check rules --lint=all --lint-fatal "$rules/stockgate.rules.yml" >checked 2>&1 || fail "$(cat checked)"
for cases in "$rules"/*.test.yml; do
    promtool test rules "$cases" >tested 2>&1 || fail "$(cat tested)"
done
# the cases can fail: of a rule that says the contrary they must
mkdir moved
cp "$rules"/*.yml moved
sed -i 's/expr: stockgate_ready == 0/expr: stockgate_ready == 1/' moved/stockgate.rules.yml
if cmp -s moved/stockgate.rules.yml "$rules/stockgate.rules.yml"; then
    fail "the control changes nothing"
fi
if promtool test rules moved/stockgate.rules.test.yml >moved/tested 2>&1; then
    fail "an alert fires when all is well, and no case notices"
fi
echo "note: $(grep -c -- '- alert:' "$rules/stockgate.rules.yml") alerts"
