//! The architecture, read from the source: who names whom, where platforms stand, how long files are.
//!
//! Each rule is a function from text to complaints, with a test that it fires on a bad snippet and one that the house is clean.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use stockgate::sources::KINDS;

use crate::rust_source::{module_of, paths, without_comments_and_literals};

/// Each module of `src/` and what it may name besides itself: the strictest table that holds. It has an order (a module
/// names only what stands above it), which is a rule of its own.
const MAY_NAME: &[(&str, &[&str])] = &[
    // a package of its own, because it has unsafe code
    ("native", &[]),
    ("limits", &[]),
    ("time", &[]),
    ("types", &["limits", "time"]),
    ("metrics", &["limits", "time"]),
    // the pure core: strangers to one another
    ("stock", &["limits", "time", "types"]),
    ("retry", &["limits", "time"]),
    ("sources", &["limits", "time", "types"]),
    ("channels", &["limits", "time", "types"]),
    // what touches the disk, what touches the network: strangers
    ("store", &["limits", "metrics", "stock", "time", "types"]),
    ("net", &["limits", "metrics", "time"]),
    ("pipeline", &["limits", "metrics", "net", "retry", "sources", "stock", "store", "time", "types"]),
    // around the pipeline, strangers to it and to one another
    ("config", &["limits", "sources", "stock", "time", "types"]),
    ("api", &["limits", "metrics", "net", "stock", "store", "time", "types"]),
    ("simulator", &["limits", "net", "sources", "stock", "time", "types"]),
    (
        "app",
        &["api", "config", "limits", "metrics", "net", "pipeline", "retry", "sources", "stock", "store", "time", "types"],
    ),
    (
        "cli",
        &[
            "api",
            "app",
            "config",
            "limits",
            "metrics",
            "net",
            "pipeline",
            "simulator",
            "sources",
            "stock",
            "store",
            "time",
            "types",
        ],
    ),
];

/// What tests inside a module may name besides: the simulator's tests read the configuration that it writes.
const TESTS_MAY_ALSO: &[(&str, &[&str])] = &[("simulator", &["config"])];

/// Folders whose parts are strangers: a part (`sources/bsale/`, `pipeline/fetch.rs`) never names another.
const STRANGERS: &[&str] = &["pipeline", "channels", "simulator/platform"];

/// Most lines of a source file.
const LINES_MAX: usize = 600;

/// What the repository holds at its top, besides dotfiles.
const TOP_LEVEL: [&str; 9] =
    ["Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "cross", "packaging", "src", "tests"];

/// Marks of work that was put off; written in pieces, so that this file does not hold them.
const PUT_OFF: [&str; 4] = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X"), concat!("HA", "CK")];

/// What must stand above a sleep in a test: then time itself is what is tested, not a way to wait for something.
const SLEEP_REASON: &str = "The time itself is what is tested";

/// One file: its path from the repository's root, and its text.
#[derive(Clone)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn in_src(&self) -> Option<&str> {
        self.path.strip_prefix("src/")
    }

    /// Compiled for tests only, as a whole file. The benchmark's load is a program: it keeps to a schedule, and has tests itself.
    fn is_test(&self) -> bool {
        (self.path.starts_with("tests/") && !self.path.starts_with("tests/bench/"))
            || self.path.contains("/tests/")
            || self.path.ends_with("tests.rs")
    }
}

// ---- the rules ------------------------------------------------------------------------------------------------------

/// A module names only what its row allows.
fn layers(file: &Source) -> Vec<String> {
    let Some(in_src) = file.in_src() else { return Vec::new() };
    let main = in_src == "main.rs";
    let module = if main { Some("main".to_owned()) } else { module_of(in_src).into_iter().next() };
    let Some(module) = module else { return Vec::new() };
    let allowed: &[&str] = match MAY_NAME.iter().find(|(name, _)| *name == module) {
        Some((_, allowed)) => allowed,
        None if main => &["cli"],
        None => return vec![format!("{}: the module `{module}` has no row in MAY_NAME", file.path)],
    };
    let for_tests = TESTS_MAY_ALSO.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, names)| names);
    let mut bad = Vec::new();
    for named in paths(in_src, &file.text) {
        let Some(first) = named.segments.first() else { continue };
        let in_tests = named.in_tests || file.is_test();
        let may = allowed.contains(&first.as_str()) || (in_tests && for_tests.contains(&first.as_str()));
        if *first != module && !may {
            bad.push(format!("{}:{}: `{module}` may not name `{named}`", file.path, named.line));
        }
    }
    bad
}

/// A row names only rows above it.
fn order(table: &[(&str, &[&str])]) -> Vec<String> {
    let mut bad = Vec::new();
    for (i, (module, allowed)) in table.iter().enumerate() {
        for name in *allowed {
            if !table[..i].iter().any(|(above, _)| above == name) {
                bad.push(format!("`{module}` may name `{name}`, which does not stand above it"));
            }
        }
    }
    bad
}

/// A part of a folder of strangers names no other part. `parts` are the module names of its folders and files.
fn strangers(file: &Source, folder: &str, parts: &BTreeSet<String>) -> Vec<String> {
    let Some(in_src) = file.in_src() else { return Vec::new() };
    let home: Vec<&str> = folder.split('/').collect();
    let module = module_of(in_src);
    let own = module.iter().map(String::as_str).take(home.len()).eq(home.iter().copied()).then(|| module.get(home.len()));
    let mut bad = Vec::new();
    // the folder's own mod.rs lists them all
    let Some(Some(own)) = own else { return bad };
    for named in paths(in_src, &file.text) {
        let inside = named.segments.iter().map(String::as_str).take(home.len()).eq(home.iter().copied());
        if let Some(other) = named.segments.get(home.len()).filter(|_| inside)
            && parts.contains(other)
            && other != own
        {
            bad.push(format!("{}:{}: `{own}` may not name its sibling `{named}`", file.path, named.line));
        }
    }
    bad
}

/// A platform is named by nobody but the list of kinds.
fn platforms_unnamed(file: &Source, platforms: &BTreeSet<String>) -> Vec<String> {
    let Some(in_src) = file.in_src() else { return Vec::new() };
    let module = module_of(in_src);
    let own = module.get(1).filter(|_| module[0] == "sources");
    let mut bad = Vec::new();
    for named in paths(in_src, &file.text) {
        let Some(platform) = named.segments.get(1).filter(|_| named.segments[0] == "sources") else { continue };
        if platforms.contains(platform) && Some(platform) != own {
            bad.push(format!("{}:{}: only KINDS may name the platform `{named}`", file.path, named.line));
        }
    }
    bad
}

/// Every platform's folder has its line in KINDS, and every line its folder.
fn kinds(folders: &BTreeSet<String>, sources_mod: &str, names: &[&str]) -> Vec<String> {
    let code = without_comments_and_literals(sources_mod);
    let list =
        code.split_once("KINDS: &[Kind] = &[").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    let lines: BTreeSet<String> =
        list.split(',').map(str::trim).filter_map(|line| line.strip_suffix("::KIND")).map(str::to_owned).collect();
    let named: BTreeSet<String> = names.iter().map(|name| name.replace('-', "_")).collect();
    let mut bad = Vec::new();
    for folder in folders {
        if !lines.contains(folder) {
            bad.push(format!("src/sources/{folder}/ has no line in KINDS"));
        }
        if !named.contains(folder) {
            bad.push(format!("src/sources/{folder}/: its kind is called otherwise than its folder"));
        }
    }
    bad.extend(lines.difference(folders).map(|line| format!("KINDS names {line}, which has no folder src/sources/{line}/")));
    bad
}

/// What a platform's folder holds besides its code.
fn platform_tests(folder: &str, files: &BTreeSet<String>) -> Vec<String> {
    let base = format!("src/sources/{folder}/");
    let mut bad = Vec::new();
    if !files.contains(&format!("{base}tests.rs")) {
        bad.push(format!("{base} has no tests.rs"));
    }
    if !files.iter().any(|file| file.starts_with(&format!("{base}fixtures/"))) {
        bad.push(format!("{base} has no fixtures/"));
    }
    bad
}

fn too_long(file: &Source) -> Vec<String> {
    let lines = file.text.lines().count();
    if lines > LINES_MAX { vec![format!("{}: {lines} lines, more than {LINES_MAX}", file.path)] } else { Vec::new() }
}

/// Marks of work that was put off, as whole words, comments included.
fn put_off(file: &Source) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut bad = Vec::new();
    for (i, line) in file.text.lines().enumerate() {
        for found in line.split(|c| !word(c)).filter(|found| PUT_OFF.contains(found)) {
            bad.push(format!("{}:{}: {found}: do it, or open an issue", file.path, i + 1));
        }
        if line.contains(concat!("to", "do!(")) || line.contains(concat!("unimple", "mented!(")) {
            bad.push(format!("{}:{}: not written yet", file.path, i + 1));
        }
    }
    bad
}

/// No test is switched off, and none waits by sleeping.
fn honest_tests(file: &Source) -> Vec<String> {
    let code = without_comments_and_literals(&file.text);
    let mut in_tests = file.is_test();
    let mut above = "";
    let mut bad = Vec::new();
    for (i, (line, whole)) in code.lines().zip(file.text.lines()).enumerate() {
        // by our own convention a file's tests are the last thing in it
        in_tests |= line.starts_with("#[cfg(test)]");
        if line.contains("#[ignore") {
            bad.push(format!("{}:{}: an ignored test proves nothing", file.path, i + 1));
        }
        let sleeps = ["thread::sleep", "time::sleep", "time::sleep_until"].iter().any(|s| line.contains(&format!("{s}(")));
        if sleeps && in_tests && !above.contains(SLEEP_REASON) {
            bad.push(format!("{}:{}: wait for what must happen, do not sleep", file.path, i + 1));
        }
        above = whole;
    }
    bad
}

/// The crate's first page: the picture, the invariants, where each thing is.
fn front_page(lib: &str) -> Vec<String> {
    let doc: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let doc = doc.join("\n");
    let mut bad = Vec::new();
    for (what, needle) in [
        ("the picture (a text block with arrows)", "```text"),
        ("the picture's journal", "JOURNAL"),
        ("the invariants", "# Invariants"),
        ("where each thing is", "# Where is"),
        ("how to add a platform", "platform"),
    ] {
        if !doc.contains(needle) {
            bad.push(format!("src/lib.rs: its documentation lacks {what}: `{needle}`"));
        }
    }
    bad
}

fn top_level(entries: &BTreeSet<String>) -> Vec<String> {
    let allowed: BTreeSet<String> = TOP_LEVEL.iter().map(|name| (*name).to_owned()).collect();
    let shown: BTreeSet<String> = entries.iter().filter(|name| !name.starts_with('.')).cloned().collect();
    let extra = shown.difference(&allowed).map(|name| format!("{name} does not belong at the top of the repository"));
    let missing = allowed.difference(&shown).map(|name| format!("{name} is missing at the top of the repository"));
    extra.chain(missing).collect()
}

// ---- the house ------------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder, by its path from the root.
fn files_below(folder: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("the folder is there") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_str().expect("a name in UTF-8"));
            if entry.file_type().expect("a type").is_dir() {
                open.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rust_files() -> Vec<Source> {
    let files = files_below("src").into_iter().chain(files_below("tests"));
    files
        .filter(|path| Path::new(path).extension().is_some_and(|e| e == "rs"))
        .map(|path| Source { text: read(&path), path })
        .collect()
}

/// Modules right below a folder of `src/`: its sub-folders and its files.
fn parts_of(folder: &str) -> BTreeSet<String> {
    let base = format!("src/{folder}/");
    if !root().join(&base).is_dir() {
        return BTreeSet::new();
    }
    let below = files_below(&format!("src/{folder}"));
    let names = below.iter().filter_map(|path| path.strip_prefix(&base)).filter_map(|rest| rest.split('/').next());
    names.map(|name| name.trim_end_matches(".rs").to_owned()).filter(|name| name != "mod" && name != "tests").collect()
}

/// Platforms: the folders of `src/sources/` that hold a module.
fn platforms() -> BTreeSet<String> {
    let has_mod = |name: &String| root().join(format!("src/sources/{name}/mod.rs")).is_file();
    parts_of("sources").into_iter().filter(has_mod).collect()
}

/// What git keeps at the top, or what lies there when this is no clone.
fn top_entries() -> BTreeSet<String> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output();
    if let Some(listed) = listed.ok().filter(|out| out.status.success() && !out.stdout.is_empty()) {
        let text = String::from_utf8(listed.stdout).expect("names in UTF-8");
        return text.split('\0').filter_map(|p| p.split('/').next()).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    }
    let there = fs::read_dir(root()).expect("the root is there").map(|entry| entry.expect("an entry").file_name());
    let made = ["target", "stockgate-data"];
    there.map(|name| name.to_string_lossy().into_owned()).filter(|name| !made.contains(&name.as_str())).collect()
}

#[track_caller]
fn clean(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_module_names_only_earlier_layers() {
    clean(rust_files().iter().flat_map(layers));
    clean(order(MAY_NAME));
    // `channels` has its row before it has its code
    let gone = MAY_NAME.iter().filter(|(m, _)| *m != "channels" && !parts_of("").contains(*m));
    clean(gone.map(|(module, _)| format!("MAY_NAME has a row for `{module}`, which is not there")));
}

#[test]
fn siblings_are_strangers() {
    let files = rust_files();
    let folders = STRANGERS.iter().map(|folder| (*folder, parts_of(folder))).chain([("sources", platforms())]);
    for (folder, parts) in folders {
        clean(files.iter().flat_map(|file| strangers(file, folder, &parts)));
    }
    let platforms = platforms();
    assert!(platforms.len() >= 8, "the platforms are found: {platforms:?}");
    clean(files.iter().flat_map(|file| platforms_unnamed(file, &platforms)));
}

#[test]
fn every_platform_is_listed_and_tested() {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    clean(kinds(&platforms(), &read("src/sources/mod.rs"), &names));
    let files = files_below("src/sources");
    clean(platforms().iter().flat_map(|platform| platform_tests(platform, &files)));
}

#[test]
fn files_are_short_finished_and_their_tests_honest() {
    let files = rust_files();
    clean(files.iter().flat_map(too_long));
    clean(files.iter().flat_map(put_off));
    clean(files.iter().flat_map(honest_tests));
    let others = ["src", "tests", "cross", "packaging"].into_iter().flat_map(files_below);
    let is_text = |path: &String| {
        let name = path.rsplit('/').next().unwrap_or_default();
        // scripts have no extension
        name.rsplit_once('.').is_none_or(|(_, extension)| ["toml", "md", "sh", "yml", "json"].contains(&extension))
    };
    let others: Vec<Source> = others.filter(is_text).map(|path| Source { text: read(&path), path }).collect();
    clean(others.iter().flat_map(put_off));
}

#[test]
fn the_front_page_shows_the_architecture() {
    clean(front_page(&read("src/lib.rs")));
}

#[test]
fn the_top_level_is_exactly_what_the_design_says() {
    clean(top_level(&top_entries()));
}

// ---- each rule fires ------------------------------------------------------------------------------------------------

/// A rule fires on this text in a file at this path, and says so with these words.
#[track_caller]
fn fires(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str, says: &str) {
    let complaints = rule(&Source::new(path, text));
    assert!(complaints.len() == 1 && complaints[0].contains(says), "{complaints:?}");
}

#[track_caller]
fn passes(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str) {
    clean(rule(&Source::new(path, text)));
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_layer_rule_fires() {
    fires(
        layers,
        "src/stock/level.rs",
        "use crate::store::rows;",
        "src/stock/level.rs:1: `stock` may not name `store::rows`",
    );
    fires(layers, "src/sources/bsale/mod.rs", "fn f() {}\nfn g() { super::super::time::x(); crate::net::x() }", ":2:");
    fires(layers, "src/net/mod.rs", "use crate::{limits, pipeline::ingest};", "pipeline::ingest");
    fires(layers, "src/metrics.rs", "#[cfg(test)] mod tests { use crate::app; }", "`metrics` may not name `app`");
    fires(layers, "src/main.rs", "fn main() { stockgate::app::run() }", "`main` may not name `app::run`");
    fires(layers, "src/helpers/mod.rs", "", "has no row");
    fires(layers, "src/simulator/mod.rs", "use crate::config::parse;", "`simulator` may not name `config::parse`");
    passes(layers, "src/simulator/tests.rs", "use crate::config::parse;");
    fires(layers, "src/simulator/tests.rs", "use crate::app::Gateway;", "`simulator` may not name `app::Gateway`");
    passes(layers, "src/stock/level.rs", "//! as [`crate::store`] keeps it\nuse crate::types::Seq; use super::audit;");
    passes(layers, "src/main.rs", "fn main() { stockgate::cli::main() }");
    assert_eq!(order(&[("a", &["b"]), ("b", &[])]), ["`a` may name `b`, which does not stand above it"]);
}

#[test]
fn the_sibling_rules_fire() {
    let stages = set(&["ingest", "apply", "fetch"]);
    let rule = |file: &Source| strangers(file, "pipeline", &stages);
    fires(
        rule,
        "src/pipeline/fetch.rs",
        "use super::apply::Fold;",
        "`fetch` may not name its sibling `pipeline::apply::Fold`",
    );
    fires(rule, "src/pipeline/apply/step.rs", "use crate::pipeline::ingest;", "`apply`");
    passes(rule, "src/pipeline/apply/step.rs", "use super::rules; use crate::pipeline::apply::facts;");
    passes(rule, "src/pipeline/mod.rs", "pub use self::apply::Fold;");
    passes(rule, "src/app.rs", "use crate::pipeline::{apply, fetch};");
    let nested = |file: &Source| strangers(file, "simulator/platform", &set(&["bsale", "jetti"]));
    fires(nested, "src/simulator/platform/jetti.rs", "use super::bsale::x;", "`jetti`");
    passes(nested, "src/simulator/mod.rs", "use self::platform::{bsale, jetti};");

    let known = set(&["bsale", "jetti"]);
    let rule = |file: &Source| platforms_unnamed(file, &known);
    fires(rule, "src/config/source.rs", "use crate::sources::bsale::KIND;", "sources::bsale::KIND");
    fires(rule, "src/sources/json.rs", "use super::jetti;", "sources::jetti");
    passes(rule, "src/sources/bsale/mod.rs", "use super::json; use crate::sources::bsale::ask;");
    passes(rule, "src/config/source.rs", "use crate::sources::{KINDS, kind};");
}

#[test]
fn the_platform_rules_fire() {
    let text = "pub const KINDS: &[Kind] = &[\n    bsale::KIND,\n    // jetti::KIND,\n    old::KIND,\n];";
    let complaints = kinds(&set(&["bsale", "jetti"]), text, &["bsale", "jetti"]);
    let expected = ["src/sources/jetti/ has no line in KINDS", "KINDS names old, which has no folder src/sources/old/"];
    assert_eq!(complaints, expected);
    let text = "const KINDS: &[Kind] = &[ standard_webhooks::KIND ];";
    clean(kinds(&set(&["standard_webhooks"]), text, &["standard-webhooks"]));
    assert_eq!(kinds(&set(&["standard_webhooks"]), text, &["webhooks"]).len(), 1);
    assert_eq!(platform_tests("bsale", &set(&["src/sources/bsale/mod.rs"])).len(), 2);
    clean(platform_tests("bsale", &set(&["src/sources/bsale/tests.rs", "src/sources/bsale/fixtures/a.json"])));
}

#[test]
fn the_text_rules_fire() {
    fires(too_long, "src/a.rs", &"x\n".repeat(601), "601 lines");
    passes(too_long, "src/a.rs", &"x\n".repeat(600));
    for word in PUT_OFF {
        fires(put_off, "src/a.rs", &format!("// {word}: later"), word);
    }
    fires(put_off, "src/a.rs", concat!("fn f() { to", "do!() }"), "not written yet");
    passes(put_off, "src/a.rs", "let seller = \"AXXXXXXXXXX\"; // todos are fine in a word");
    fires(honest_tests, "tests/it/a.rs", "#[ignore = \"slow\"]", "ignored");
    fires(honest_tests, "tests/it/a.rs", "std::thread::sleep(SECOND);", "do not sleep");
    fires(honest_tests, "src/a.rs", "#[cfg(test)]\nmod tests {\n    tokio::time::sleep(SECOND).await;\n}", "src/a.rs:3");
    passes(honest_tests, "src/a.rs", "tokio::time::sleep(PAUSE).await;\n#[cfg(test)]\nmod tests {}");
    passes(honest_tests, "tests/bench/a.rs", "thread::sleep(PAUSE);\n#[cfg(test)]\nmod tests {}");
    fires(honest_tests, "tests/bench/a.rs", "#[cfg(test)]\nmod tests {\n    thread::sleep(SECOND);\n}", "do not sleep");
    passes(honest_tests, "src/a/tests.rs", &format!("// {SLEEP_REASON}.\ntokio::time::sleep(SHORT).await;"));
}

#[test]
fn the_outer_rules_fire() {
    assert_eq!(front_page("//! A crate.").len(), 5);
    let complaints = top_level(&set(&["Cargo.toml", ".ci", "src", "docs"]));
    assert!(complaints[0].starts_with("docs does not belong") && complaints.len() == 8, "{complaints:?}");
    clean(top_level(&TOP_LEVEL.iter().map(|name| (*name).to_owned()).chain([".gitignore".to_owned()]).collect()));
}
