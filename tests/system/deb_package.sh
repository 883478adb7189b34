# The package as a file: what it holds, what Debian's checker says of it, how exposed its unit is, that two builds give the same bytes.
. "$(dirname "$0")/lib.bash"

for build in one two; do
    # at two times: the commit's time alone counts
    "$ROOT/packaging/build-deb" amd64 --binary "$BIN" --out "$build" >"$build.log" 2>&1 || fail "build: $(cat "$build.log")"
done
package=$(tail -1 one.log)
cmp "$package" "two/$(basename "$package")" || fail "two builds differ"
"$ROOT/tests/system/deb/package" "$package"

# every example is a configuration, beside the package's own
dpkg-deb -x "$package" tree
mkdir -p tree/etc/stockgate/credentials
printf 'c3RvY2tnYXRlIGV4YW1wbGUh' | write tree/etc/stockgate/credentials/generic.secret
"$BIN" check --config tree/etc/stockgate/stockgate.toml >check.out 2>&1 || fail "the package's configuration: $(cat check.out)"
grep -q '^# ok' check.out || fail "check says nothing: $(cat check.out)"
! grep -q '^warning' check.out || fail "the package's configuration: $(cat check.out)"
examples=0
for example in tree/usr/share/doc/stockgate/examples/*.toml; do
    cp "$example" tree/etc/stockgate/conf.d/example.toml
    sed -n 's/^[a-z_]*_file = "\(.*\)"$/\1/p' "$example" | while IFS= read -r name; do
        printf 'c3RvY2tnYXRlIGV4YW1wbGUh' | write "tree/etc/stockgate/credentials/$name"
    done
    "$BIN" check --config tree/etc/stockgate/stockgate.toml >check.out 2>&1 || fail "$example: $(cat check.out)"
    grep -q "take $(basename "$example" .toml) .* at /in/" check.out || fail "$example configures no source: $(cat check.out)"
    examples=$((examples + 1))
done
# README.md's table has a line for each platform
same "examples" "$(sed -n '/^| platform | `kind`/,/^$/p' "$ROOT/README.md" | grep -c '^| [A-Za-z].*`')" "$((examples + 1))"
echo "note: $examples examples"
