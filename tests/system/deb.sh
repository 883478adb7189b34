# The package's life on a box: a real systemd as PID 1 in namespaces, over a copy of this system; see deb/life for what is asked.
. "$(dirname "$0")/lib.bash"
here=$ROOT/tests/system

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -1)-1
previous=0.0.9-1
mkdir -p box/new box/previous out
SOURCE_DATE_EPOCH=1700000000 "$ROOT/packaging/build-deb" amd64 --binary "$BIN" --version "$version" --out built >build.log 2>&1 &&
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/packaging/build-deb" amd64 --binary "$BIN" --version "$previous" --out built >>build.log 2>&1 ||
    fail "the package cannot be built: $(cat build.log)"
cp "built/stockgate_${version}_amd64.deb" box/new/stockgate.deb
# where the README's first line finds it, and by a short name
cp "built/stockgate_${previous}_amd64.deb" box/previous/
ln -s "stockgate_${previous}_amd64.deb" box/previous/stockgate.deb

# lines_of FILE HEADING: the shell lines of the first block after a heading
lines_of() {
    awk -v heading="$2" '
        index($0, heading) { found = 1; next }
        found && /^```sh$/ { inside = 1; next }
        inside && /^```$/ { exit }
        inside { print }' "$1"
}
lines_of "$ROOT/README.md" "## Install on a box" >box/install.lines
same "README.md's lines to install" 5 "$(grep -c . box/install.lines)"
# deb_lines HEADING: the lines to run in a section of README.Debian
deb_lines() {
    awk -v heading="$1" '
        $0 == heading { found = 1; getline; next }
        found && /^---/ { exit }
        found && /^    / { print substr($0, 5) }' "$ROOT/packaging/debian/README.Debian"
}
deb_lines "No connection refused during an upgrade" >box/socket.lines
same "README.Debian's lines for the socket" 5 "$(grep -c . box/socket.lines)"
deb_lines "Reload when the admin address wants tokens" >box/token.lines
same "README.Debian's lines for the token" 6 "$(grep -c . box/token.lines)"

cp "$here/lib.bash" "$here/deb/load" box/
find / -xdev \( -path /proc -o -path /sys -o -path /root -o -path /tmp -o -path /work \) -prune -o -name '*stockgate*' -print >box/before
sed -e "s/\$PREVIOUS/$previous/; s/\$VERSION/$version/" "$here/deb/life" >box/life

status=0
timeout 240 unshare -m -p -f -n -u -i -C bash "$here/deb/namespace" "$PWD" >boot.log 2>&1 || status=$?
if ! grep -qx '== done' out/life.log 2>/dev/null; then
    tail -5 boot.log
    echo "---- the gateway's journal"
    grep -E 'stockgate|systemd\[1\]' out/journal.log 2>/dev/null | tail -40
    echo "---- life"
    cat out/life.log 2>/dev/null
    fail "the life test ended with $status before its end"
fi
grep '^note: ' out/life.log || true
