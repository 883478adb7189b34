//! `conf.d/*.toml`: what a drop-in may do, and that every message names the file that it is about.

use std::fmt::Write as _;
use std::path::Path;

use super::{KINDS, environment, lines};
use crate::config::{Inputs, Loaded, LogLevel, Overrides, Report, drop_ins, load_with};
use crate::limits;

/// A directory with `stockgate.toml` and files of `conf.d`.
struct Folder {
    directory: tempfile::TempDir,
}

impl Folder {
    fn new(main: &str, drop_ins: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("conf.d")).expect("made");
        let made = Self { directory };
        made.write("stockgate.toml", main);
        for (name, text) in drop_ins {
            made.write(&format!("conf.d/{name}"), text);
        }
        made
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("written");
    }

    fn load(&self, overrides: &Overrides) -> Result<Loaded, Report> {
        let inputs = Inputs { kinds: KINDS, overrides, env: &environment(&[]) };
        load_with(&self.path().join("stockgate.toml"), &inputs)
    }

    fn good(&self) -> Loaded {
        self.load(&Overrides::default()).unwrap_or_else(|report| panic!("{report}"))
    }

    /// What is wrong, without the directory's name.
    fn problems(&self) -> Vec<String> {
        let report = self.load(&Overrides::default()).expect_err("has problems");
        let shown = format!("{}/", self.path().display());
        lines(&report.problems).into_iter().map(|line| line.replace(&shown, "")).collect()
    }
}

const SHOP: &str = "[source.shop]\nkind = \"signed\"\nwarehouse = \"main\"\nsecret_env = \"GOOD\"\n";

#[test]
fn a_drop_in_adds_sources_and_wins_over_the_file_key_by_key() {
    let files = Folder::new(
        "[listen]\naddress = \"127.0.0.1:443\"\n[log]\nlevel = \"warn\"\nformat = \"json\"\n",
        &[
            ("50-shop.toml", SHOP),
            ("10-local.toml", "[log]\nlevel = \"debug\"\n[limits]\nqueue = 9\n"),
            ("20-hall.toml", "[warehouse.main]\nname = \"Main hall\"\n"),
        ],
    );
    let (checked, warned) = files.good();
    assert_eq!(checked.listen.port(), 443, "what no drop-in names stays");
    assert_eq!((checked.log.level, checked.log.format), (LogLevel::Debug, crate::config::LogFormat::Json));
    assert_eq!(checked.limits.queue_records, 9);
    assert_eq!(checked.sources.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["shop"]);
    assert_eq!(checked.warehouses.values().next().map(|w| w.name.as_str()), Some("Main hall"));
    assert_eq!(warned, []);
    let (checked, _) = files.load(&Overrides::default().set("log.level", "error", "--log")).expect("good");
    assert_eq!(checked.log.level, LogLevel::Error, "the command line wins over a drop-in");
}

#[test]
fn only_toml_files_that_are_not_hidden_are_read_in_the_order_of_their_names() {
    let files = Folder::new("", &[("b.toml", ""), ("a.toml", ""), ("10.toml", "")]);
    for ignored in [".c.toml", "d.toml.dpkg-new", "e.toml~", "README"] {
        files.write(&format!("conf.d/{ignored}"), "this is not TOML");
    }
    let found = drop_ins(&files.path().join("stockgate.toml")).expect("readable");
    let names: Vec<_> = found.iter().map(|path| path.strip_prefix(files.path()).expect("inside").to_owned()).collect();
    assert_eq!(names, ["conf.d/10.toml", "conf.d/a.toml", "conf.d/b.toml"].map(Path::new));
    assert_eq!(files.good().1.len(), 1, "only that there is no source");
}

#[test]
fn a_mistake_is_told_with_its_file_and_line() {
    let files = Folder::new(
        "[log]\nlevel = \"loud\"\n",
        &[
            (
                "10-shop.toml",
                "\n[source.shop]\nkind = \"signed\"\nwarehouse = \"main\"\nsecret_env = \"GOOD\"\ntolerence = \"5m\"\n",
            ),
            ("20-local.toml", "[limits]\nqueue = \"many\"\n"),
        ],
    );
    let problems = files.problems();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].starts_with("stockgate.toml:2: log.level: "), "{problems:?}");
    assert!(problems[1].starts_with("conf.d/10-shop.toml:6: source.shop.tolerence: "), "{problems:?}");
    assert!(problems[2].starts_with("conf.d/20-local.toml:2: limits.queue: "), "{problems:?}");
}

#[test]
fn a_value_that_a_drop_in_replaced_is_told_at_the_drop_in() {
    let files = Folder::new("[log]\nlevel = \"warn\"\n", &[("a.toml", "\n\n[log]\nlevel = \"loud\"\n")]);
    let problems = files.problems();
    assert!(problems[0].starts_with("conf.d/a.toml:4: log.level: "), "{problems:?}");
}

#[test]
fn what_stands_in_two_places_is_told_with_both() {
    let files = Folder::new(
        "[warehouse.main]\nname = \"Main hall\"\n",
        &[
            ("a.toml", &format!("{SHOP}[log]\nlevel = \"warn\"\n")),
            ("b.toml", &format!("[log]\nlevel = \"info\"\n{SHOP}")),
            ("c.toml", "warehouse.main.low = \"5\"\n"),
        ],
    );
    let at = |file: &str| files.path().join(file).display().to_string();
    let shown = format!("{}/", files.path().display());
    let expected = [
        format!(
            "conf.d/b.toml:2: log.level: stands in {}:6 too: drop-ins must not contradict each other; keep one",
            at("conf.d/a.toml")
        ),
        format!("conf.d/b.toml:3: source.shop: stands in {}:1 too: one file holds all of it", at("conf.d/a.toml")),
        format!("conf.d/c.toml:1: warehouse.main: stands in {}:1 too: one file holds all of it", at("stockgate.toml")),
    ];
    assert_eq!(files.problems(), expected.map(|line| line.replace(&shown, "")));
}

#[test]
fn what_is_not_toml_is_told_for_every_file_at_once() {
    let files = Folder::new("[log\n", &[("a.toml", "x = \n"), ("b.toml", SHOP)]);
    let problems = files.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("stockgate.toml:1: not valid TOML"), "{problems:?}");
    assert!(problems[1].starts_with("conf.d/a.toml:1: not valid TOML"), "{problems:?}");
}

#[test]
fn what_cannot_be_read_is_a_problem_and_not_left_out() {
    let files = Folder::new("", &[]);
    std::fs::create_dir(files.path().join("conf.d/folder.toml")).expect("made");
    std::os::unix::fs::symlink("nowhere", files.path().join("conf.d/link.toml")).expect("made");
    assert_eq!(
        files.problems(),
        ["conf.d/folder.toml: cannot be read: it is not a regular file", "conf.d/link.toml: cannot be read: no such file"]
    );
    let files = Folder::new("", &[]);
    std::fs::remove_dir(files.path().join("conf.d")).expect("removed");
    assert!(files.load(&Overrides::default()).is_ok(), "no folder, no drop-ins");
    files.write("conf.d", "a file");
    let problems = files.problems();
    assert!(problems[0].starts_with("stockgate.toml: conf.d cannot be read: "), "{problems:?}");
}

#[test]
fn there_are_bounds() {
    let mut half = String::new();
    while u64::try_from(half.len()).expect("small") <= limits::CONFIG_MAX_BYTES / 2 {
        writeln!(half, "# {}", "x".repeat(100)).expect("a text grows");
    }
    let files = Folder::new(&half, &[("a.toml", ""), ("b.toml", &half)]);
    assert_eq!(
        files.problems(),
        ["conf.d/b.toml: with the files before it is larger than 512KiB: mappings of many items belong in an items_file"]
    );
    let files = Folder::new("", &[]);
    for i in 0..=limits::CONFIG_DROP_INS_MAX {
        files.write(&format!("conf.d/{i}.toml"), "");
    }
    assert_eq!(files.problems(), ["stockgate.toml: conf.d holds more than 320 drop-ins: put several sources into one file"]);
}

#[test]
fn paths_in_a_drop_in_are_relative_to_the_configuration_file() {
    let files = Folder::new("", &[("shop.toml", &SHOP.replace("secret_env = \"GOOD\"", "secret_file = \"shop.secret\""))]);
    files.write("conf.d/shop.secret", "not this one");
    assert_eq!(files.problems(), ["conf.d/shop.toml:4: source.shop.secret_file: shop.secret cannot be read: no such file"]);
    files.write("shop.secret", "this one, of some length");
    assert_eq!(files.good().0.sources[0].secrets[0].expose(), b"this one, of some length");
}
