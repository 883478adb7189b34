# The release binary needs nothing of the system it runs on, and is small.
. "$(dirname "$0")/lib.bash"

kind=$(file -b "$BIN")
[[ $kind == *"ELF 64-bit"* ]] || fail "not a program: $kind"
[[ $kind == *"static-pie linked"* || $kind == *"statically linked"* ]] || fail "not static: $kind"
[[ $kind != *"interpreter"* ]] || fail "it wants an interpreter: $kind"
libraries=$(ldd "$BIN" 2>&1 || true)
[[ $libraries == *"statically linked"* || $libraries == *"not a dynamic executable"* ]] || fail "it wants libraries: $libraries"
# an empty root is enough for it
mkdir -p root/tmp
cp "$BIN" root/stockgate
version=$(chroot root /stockgate --version)
# the revision follows, when it was built from a checkout
same "version in an empty root" "stockgate $(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -1)" "${version%% (*}"
chroot root /stockgate check >/dev/null
# it is copied to boxes over thin lines: growth is to be seen, and to be meant
bytes=$(stat -c %s "$BIN")
((bytes <= 8912896)) || fail "$bytes bytes, more than 8.5 MiB"
echo "note: $bytes bytes"
