//! What may be in the dependency tree, read from `Cargo.lock`.

use std::collections::BTreeMap;

/// Locked because a feature that is off names them.
const NOT_BUILT: [&str; 4] = ["hyper-rustls", "openssl-probe", "rustls-native-certs", "rustls-platform-verifier"];

/// Every package in the lock file with its versions.
fn packages() -> BTreeMap<String, Vec<String>> {
    let text = include_str!("../../Cargo.lock");
    let lock: toml::Table = toml::from_str(text).expect("Cargo.lock is TOML");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("packages") {
        let text = |key: &str| package[key].as_str().expect("text").to_owned();
        found.entry(text("name")).or_default().push(text("version"));
    }
    found
}

/// A version's numbers, for comparison; what follows a `-` or `+` does not count.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().expect("a version");
    plain.split('.').map(|n| n.parse().expect("a number")).collect()
}

/// One TLS, one crypto library, no C build system: the binary is static on every target.
#[test]
fn no_second_crypto_library() {
    let banned = |name: &str| {
        // it only looks for the system's roots, and is not even built
        (name != "openssl-probe" && ["aws-lc", "openssl"].iter().any(|prefix| name.starts_with(prefix)))
            || ["native-tls", "cmake", "boring"].contains(&name)
    };
    for name in ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls", "cmake"] {
        assert!(banned(name), "the ban knows {name}");
    }
    let packages = packages();
    let found: Vec<&String> = packages.keys().filter(|name| banned(name)).collect();
    assert!(found.is_empty(), "banned packages in Cargo.lock: {found:?}");
    assert!(packages.contains_key("ring"), "ring is the crypto library");
    assert_eq!(packages["rustls"].len(), 1, "one rustls");
}

/// `Cargo.lock` also holds what a feature names that nobody switches on: instant-acme's own HTTP client. None of it is built.
#[test]
fn what_is_locked_and_not_built() {
    let tree = |kinds: &str| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let args = ["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}", "--edges", kinds];
        let listed = std::process::Command::new(cargo).current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output();
        let listed = listed.expect("cargo runs");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let text = String::from_utf8(listed.stdout).expect("names in UTF-8");
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let built = tree("normal,build");
    assert!(built.iter().any(|name| name == "instant-acme"), "{built:?}");
    for name in NOT_BUILT {
        assert!(!built.iter().any(|built| built == name), "{name} is built");
    }
}

/// Versions before these lose data (redb) or are open to known attacks.
#[test]
fn minimum_versions() {
    assert!(numbers("4.10.0") > numbers("4.4.0") && numbers("4.4.0-rc.1") == numbers("4.4.0"));
    let packages = packages();
    for (name, least) in [("redb", "4.4.0"), ("rustls-webpki", "0.103.13"), ("h2", "0.4.20")] {
        for version in &packages[name] {
            assert!(numbers(version) >= numbers(least), "{name} {version} is older than {least}");
        }
    }
}

/// The number of the option is mimalloc's, and a new release may have another list: then the delay that is found is not its default.
#[test]
fn the_allocator_can_be_told_to_give_memory_back() {
    assert_eq!(stockgate_native::give_back_at_once(), 0);
}
