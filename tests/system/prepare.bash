# What the system tests need before they can run. Sourced, with `root` (the repository) and `scratch` (a directory) set.

install() {
    local missing=()
    command -v curl >/dev/null || missing+=(curl ca-certificates)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v jq >/dev/null || missing+=(jq)
    command -v file >/dev/null || missing+=(file)
    command -v python3 >/dev/null || missing+=(python3-minimal)
    command -v strace >/dev/null || missing+=(strace)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    command -v mount >/dev/null || missing+=(mount)
    command -v systemd-socket-activate >/dev/null || missing+=(systemd)
    command -v pgrep >/dev/null || missing+=(procps)
    if ((${#missing[@]})) || ! command -v promtool >/dev/null; then
        apt-get update -qq
    fi
    if ((${#missing[@]})); then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
    # promtool alone: the package would start a server
    if ! command -v promtool >/dev/null; then
        mkdir "$scratch/prometheus"
        (cd "$scratch/prometheus" && apt-get -o APT::Sandbox::User=root download -qq prometheus && dpkg-deb -x prometheus_*.deb .) >/dev/null
        export PATH="$scratch/prometheus/usr/bin:$PATH"
    fi
}

# The release command stands in README.md once, and is run as it stands there.
build() {
    local command
    command=$(sed -n '/^## Release binary/,/^## /p' "$root/README.md" | sed -n 's/^\(RUSTFLAGS=.*cargo build .*\)$/\1/p')
    [[ $(wc -l <<<"$command") == 1 && -n $command ]] || { echo "README.md: the release command is not found" >&2; return 1; }
    echo "building: $command"
    (cd "$root" && sh -c "$command") || return 1
    BIN=${CARGO_TARGET_DIR:-$root/target}/x86_64-unknown-linux-gnu/release/stockgate
}

# The sender is built as `cargo test` builds it: nothing is measured with it, and all but itself is compiled already.
build_load() {
    echo "building: cargo build --locked --example power-load"
    (cd "$root" && cargo build --locked --example power-load) || return 1
    LOAD=${CARGO_TARGET_DIR:-$root/target}/debug/examples/power-load
}

prepare() {
    install
    if [[ -n ${STOCKGATE_BIN:-} ]]; then BIN=$(realpath "$STOCKGATE_BIN"); else build; fi
    if [[ -n ${STOCKGATE_LOAD:-} ]]; then LOAD=$(realpath "$STOCKGATE_LOAD"); else build_load; fi
    export BIN LOAD ROOT=$root
}
