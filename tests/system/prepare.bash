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
    command -v pebble >/dev/null || missing+=(pebble)
    # the package: its life under systemd, its pages, what Debian's own checker says of it
    command -v systemd-socket-activate >/dev/null && [[ -x /lib/systemd/systemd ]] || missing+=(systemd)
    command -v ip >/dev/null && command -v ss >/dev/null || missing+=(iproute2)
    command -v ps >/dev/null && command -v pgrep >/dev/null || missing+=(procps)
    command -v lintian >/dev/null || missing+=(lintian)
    command -v man >/dev/null || missing+=(man-db)
    python3 -c 'import json, tomllib' 2>/dev/null || missing+=(python3)
    if ((${#missing[@]})) || ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null ||
        [[ ! -e /usr/lib/nginx/modules/ngx_stream_module.so ]]; then
        apt-get update -qq
    fi
    if ((${#missing[@]})); then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
    # nginx with its stream module, for a proxy in front; only the files, since the packages would start a server
    if ! command -v nginx >/dev/null || [[ ! -e /usr/lib/nginx/modules/ngx_stream_module.so ]]; then
        mkdir "$scratch/nginx"
        (cd "$scratch/nginx" && apt-get -o APT::Sandbox::User=root download -qq nginx libnginx-mod-stream && for deb in *.deb; do dpkg-deb -x "$deb" .; done) >/dev/null
        export NGINX=$scratch/nginx/usr/sbin/nginx NGINX_MODULES=$scratch/nginx/usr/lib/nginx/modules
    fi
    # the programs alone: the package would start a server
    if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
        mkdir "$scratch/downloaded"
        (cd "$scratch/downloaded" && apt-get -o APT::Sandbox::User=root download -qq prometheus && dpkg-deb -x prometheus_*.deb .) >/dev/null
        export PATH="$scratch/downloaded/usr/bin:$PATH"
    fi
}

# The release command stands in README.md once, and is run as it stands there.
build() {
    local command
    command=$(sed -n '/^## Release binary/,/^## /p' "$root/README.md" | grep '^cross/build ') || { echo "README.md: the release command is not found" >&2; return 1; }
    echo "building: $command"
    BIN=$(cd "$root" && realpath "$(sh -c "$command" | tail -1)") || return 1
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
