//! Where secrets come from, and where they never go.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;

use super::{GOOD, lines, parse_in, problems};
use crate::config::{Checked, masked, read_secret};

const SHOP: &str = "[source.shop]\nkind = \"signed\"\nwarehouse = \"main\"\n";

fn write(path: &Path, bytes: &[u8], mode: u32) {
    std::fs::write(path, bytes).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

fn secrets(checked: &Checked) -> Vec<&[u8]> {
    checked.sources[0].secrets.iter().map(crate::types::Secret::expose).collect()
}

#[test]
fn a_secrets_file_is_looked_up_in_the_credentials_first_then_beside_the_configuration() {
    let (credentials, beside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    write(&credentials.path().join("shop"), b"from systemd\r\n", 0o400);
    write(&beside.path().join("shop"), b"from beside\n", 0o640);
    write(&beside.path().join("old"), b" kept as it is \n\n", 0o600);
    let text = format!("{SHOP}secret_files = [\"shop\", \"old\"]\n");
    let handed = credentials.path().to_str().expect("UTF-8");

    let (checked, warned) = parse_in(&text, beside.path(), &[("CREDENTIALS_DIRECTORY", handed)]).expect("good");
    assert_eq!(secrets(&checked), [b"from systemd".as_slice(), b" kept as it is "]);
    assert_eq!(checked.sources[0].secrets_from, [format!("{handed}/shop"), format!("{}/old", beside.path().display())]);
    assert_eq!(lines(&warned), [] as [&str; 0]);

    let (checked, _) = parse_in(&text, beside.path(), &[]).expect("good");
    assert_eq!(secrets(&checked), [b"from beside".as_slice(), b" kept as it is "]);
    let absolute = format!("{SHOP}secret_file = \"{}/shop\"\n", beside.path().display());
    let (checked, _) = parse_in(&absolute, Path::new("/nonexistent"), &[("CREDENTIALS_DIRECTORY", handed)]).expect("good");
    assert_eq!(secrets(&checked), [b"from beside"]);
}

#[test]
fn a_folder_of_credentials_is_found_as_systemd_hands_it_over_and_as_it_lies_on_disk() {
    let (handed, beside) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let text = format!("{SHOP}secret_file = \"shop\"\n");
    let environment = [("CREDENTIALS_DIRECTORY", handed.path().to_str().expect("UTF-8"))];
    let found = || {
        let (checked, _) = parse_in(&text, beside.path(), &environment).expect("good");
        String::from_utf8(checked.sources[0].secrets[0].expose().to_vec()).expect("text")
    };
    write(&beside.path().join("shop"), b"beside the configuration", 0o600);
    assert_eq!(found(), "beside the configuration");
    std::fs::create_dir(beside.path().join("credentials")).expect("made");
    write(&beside.path().join("credentials/shop"), b"in its folder of credentials", 0o600);
    assert_eq!(found(), "in its folder of credentials");
    write(&handed.path().join("credentials_shop"), b"from the folder, by systemd", 0o400);
    assert_eq!(found(), "from the folder, by systemd");
    write(&handed.path().join("shop"), b"by its own name, by systemd", 0o400);
    assert_eq!(found(), "by its own name, by systemd");
}

#[test]
fn a_secret_that_cannot_be_had_is_told_by_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory.path().join("empty"), b"\n", 0o600);
    write(&directory.path().join("large"), &vec![b'x'; 65_537], 0o600);
    let shown = directory.path().display();
    let text = format!("{SHOP}secret_files = [\n  \"missing\",\n  \"empty\",\n  \"large\",\n  \".\",\n]\n");
    assert_eq!(
        lines(&parse_in(&text, directory.path(), &[]).expect_err("unusable").problems),
        [
            format!("stockgate.toml:5: source.shop.secret_files[0]: {shown}/missing cannot be read: no such file"),
            format!("stockgate.toml:6: source.shop.secret_files[1]: the secret from {shown}/empty is empty"),
            format!("stockgate.toml:7: source.shop.secret_files[2]: {shown}/large cannot be read: it is larger than 64KiB"),
            format!("stockgate.toml:8: source.shop.secret_files[3]: {shown}/. cannot be read: it is not a regular file"),
        ]
    );
    assert_eq!(
        problems(&format!("{SHOP}secret_env = \"NOBODY\"\n")),
        ["stockgate.toml:4: source.shop.secret_env: the environment variable NOBODY is not set"]
    );
    assert_eq!(
        problems(&format!("{SHOP}secret = \"\"\n")),
        ["stockgate.toml:4: source.shop.secret: the secret from the configuration is empty"]
    );
    assert_eq!(
        problems(&format!("{SHOP}secret_files = []\n")),
        ["stockgate.toml:4: source.shop.secret_files: is an empty list"]
    );
    assert_eq!(
        problems(&format!("{SHOP}secret_env = \"GOOD\"\nsecret_file = \"shop\"\n")),
        [
            "stockgate.toml:4: source.shop.secret_env: give only one of secret_file, secret_files, secret_env, secret: \
             `secret_file` is there too",
            "stockgate.toml:5: source.shop.secret_file: /nonexistent/shop cannot be read: no such file",
        ]
    );
    let nine: Vec<&str> = std::iter::repeat_n("\"GOOD\"", 9).collect();
    assert_eq!(
        problems(&format!("{SHOP}secret_env = [{}]\n", nine.join(", "))),
        ["stockgate.toml:4: source.shop.secret_env: 9 secrets are too many: at most 8 at a time"]
    );
}

#[test]
fn what_should_not_stay_so_is_warned_about() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory.path().join("open"), b"long enough\n", 0o644);
    let text = format!("{SHOP}secret_file = \"open\"\n");
    let shown = directory.path().display();
    assert_eq!(
        lines(&parse_in(&text, directory.path(), &[]).expect("good").1),
        [format!(
            "stockgate.toml:4: source.shop.secret_file: {shown}/open is open to every user of this machine: chmod o= {shown}/open"
        )]
    );
    assert_eq!(
        lines(&parse_in(&format!("{SHOP}secret = [\"sesame\"]\n"), directory.path(), &[]).expect("good").1),
        [
            "stockgate.toml:4: source.shop.secret[0]: a secret in the configuration is read by all who read it: use `secret_file`",
            "stockgate.toml:4: source.shop.secret[0]: the secret from the configuration is shorter than 8 bytes",
        ]
    );
}

#[test]
fn a_path_token_must_be_long_and_fit_in_a_path() {
    let feed = "[source.feed]\nkind = \"unsigned\"\nwarehouse = \"main\"\n";
    assert_eq!(
        problems(&format!("{feed}token = \"fifteen-letters\"\n")),
        ["stockgate.toml:4: source.feed.token: the token has 15 characters: it must have 16 to 255"]
    );
    assert_eq!(
        problems(&format!("{feed}token = \"sixteen/letters!\"\n")),
        [
            "stockgate.toml:4: source.feed.token: the token is a path segment: only letters, digits, `-`, `.`, `_` and `~` can \
          stand in it"
        ]
    );
    assert_eq!(
        problems(&format!("{feed}token = [\"{GOOD}\"]\n")),
        ["stockgate.toml:4: source.feed.token: expected a text in quotes"]
    );
}

#[test]
fn a_credential_is_one_line_and_its_file_is_remembered() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    write(&path, b"first\n", 0o600);
    let shop = "[source.shop]\nkind = \"asking\"\nwarehouse = \"main\"\nsecret_env = \"GOOD\"\n[source.shop.api]\n\
                base_url = \"https://Shop.example.com/\"\ntoken_file = \"token\"\napp_id_env = \"GOOD\"\nper = \"1s\"\nrequests = 2\n";
    let (checked, _) = parse_in(shop, directory.path(), &[]).expect("good");
    let api = checked.sources[0].api.as_ref().expect("configured");
    assert_eq!((api.base_url.as_str(), api.requests, api.per.as_secs()), ("https://shop.example.com", 2, 1));
    assert_eq!((api.credentials.text("token"), api.credentials.text("app_id")), ("first", GOOD));
    assert_eq!(api.credential_files, [("token".to_owned(), path.clone())]);

    write(&path, b"second\n", 0o600);
    assert_eq!(read_secret(&path).expect("readable").expose(), b"second");
    write(&path, b"two\nlines\n", 0o600);
    assert_eq!(
        lines(&parse_in(shop, directory.path(), &[]).expect_err("two lines").problems),
        ["stockgate.toml:7: source.shop.api.token_file: must be one line of text: it is sent in a header"]
    );
}

#[test]
fn a_mistyped_secret_is_not_shown() {
    for wrong in ["12345678901234567", "[1234567890123456]", "{ hunter2hunter2 = 1 }", "true", "1979-05-27"] {
        for key in ["secret", "token", "secret_env"] {
            let told = problems(&format!("{SHOP}{key} = {wrong}\n")).join("\n");
            assert!(told.contains(&format!("stockgate.toml:4: source.shop.{key}")), "{told}");
            assert!(!told.contains("hunter2") && !told.contains("123456"), "{told}");
        }
    }
    let told = problems(&format!("{SHOP}secret_env = \"GOOD\"\nsecrt = \"hunter2hunter2\"\n")).join("\n");
    assert!(told.contains("did you mean `secret`?") && !told.contains("hunter2"), "{told}");
    assert_eq!(
        problems(&format!("{SHOP}secret_env = \"hunter2+hunter2\"\n")),
        ["stockgate.toml:4: source.shop.secret_env: is not the name of an environment variable"]
    );
    let told = problems(&format!("{SHOP}secret = hunter2hunter2\n")).join("\n");
    assert!(told.contains("not valid TOML") && !told.contains("hunter2"), "{told}");
}

proptest! {
    /// Whatever the secrets are, they are in nothing that is printed and in nothing that is kept.
    #[test]
    fn secrets_stay_where_they_are(secret in "[!#-\\[\\]-~]{12,40}", token in "[a-zA-Z0-9._~-]{20,40}", credential in "[!#-\\[\\]-~]{12,40}") {
        let text = format!(
            "[source.shop]\nkind = \"asking\"\nwarehouse = \"main\"\nsecret = \"{secret}\"\ntoken = \"{token}\"\ntopics = [\"a\"]\n\
             [source.shop.api]\nbase_url = \"https://shop.example.com\"\ntoken = \"{credential}\"\napp_id = \"{secret}\"\n"
        );
        let (checked, warned) = parse_in(&text, Path::new(""), &[]).expect("good");
        let source = &checked.sources[0];
        prop_assert_eq!(source.secrets[0].expose(), secret.as_bytes());
        prop_assert_eq!(source.token.as_ref().map(crate::types::Secret::expose), Some(token.as_bytes()));
        let printed = format!("{}\n{checked:?}\n{checked:#?}\n{}\n{warned:?}", masked(&checked), checked.policy.to_canonical());
        for hidden in [&secret, &token, &credential] {
            prop_assert!(!printed.contains(hidden.as_str()), "{}", printed);
        }
    }

    /// Problems do not show them either, however broken the rest of the file is.
    #[test]
    fn problems_do_not_show_secrets(secret in "[!#-\\[\\]-~]{12,40}", broken in "\\PC{0,40}") {
        let text = format!("{SHOP}secret = \"{secret}\"\ntoken = \"{secret}\"\n{broken}\nzzz = 1\n");
        let report = parse_in(&text, Path::new(""), &[]).expect_err("zzz is unknown");
        let told = format!("{report}\n{report:?}");
        prop_assert!(broken.contains(&secret) || !told.contains(&secret), "{}", told);
    }
}
