//! Just enough of Rust's grammar to say which paths a source file names. Text in, values out.
//!
//! Deliberately absent: macros that build paths out of pieces, and `use` of a module under another name followed by paths
//! through that name (the `use` itself is seen, which is enough).

use std::fmt;

/// A path that a file names, made absolute: `super::json` in `src/sources/bsale/mod.rs` is `sources::json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Segments after `crate`.
    pub(crate) segments: Vec<String>,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Inside a module that is compiled for tests only.
    pub(crate) in_tests: bool,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.segments.join("::"))
    }
}

/// The module that a file under `src/` is: `sources/bsale/mod.rs` is `sources::bsale`, `lib.rs` is the root.
pub(crate) fn module_of(path_in_src: &str) -> Vec<String> {
    let stem = path_in_src.strip_suffix(".rs").unwrap_or(path_in_src);
    let mut segments: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if matches!(segments.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        segments.pop();
    }
    segments
}

/// The text with comments, strings and character literals blanked; lines stay where they are.
pub(crate) fn without_comments_and_literals(text: &str) -> String {
    let source: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < source.len() {
        let end = literal_end(&source, at);
        if end == at {
            out.push(source[at]);
            at += 1;
        } else {
            out.extend(source[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(source: &[char], at: usize) -> usize {
    let rest = &source[at..];
    let begins = |text: &str| text.chars().zip(rest.iter()).filter(|(a, b)| a == *b).count() == text.len();
    if begins("//") {
        return at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
    }
    if begins("/*") {
        return at + block_comment(rest);
    }
    let in_word = at > 0 && (source[at - 1].is_alphanumeric() || source[at - 1] == '_');
    let prefix = if in_word { 0 } else { rest.iter().take(2).take_while(|c| matches!(c, 'b' | 'c' | 'r')).count() };
    let raw = rest[..prefix].contains(&'r');
    let hashes = if raw { rest[prefix..].iter().take_while(|c| **c == '#').count() } else { 0 };
    match rest.get(prefix + hashes) {
        Some('"') if raw => at + raw_string(rest, prefix + hashes + 1, hashes),
        Some('"') if !in_word || prefix == 0 => at + quoted(rest, prefix + 1, '"'),
        Some('\'') if hashes == 0 && !raw => at + character(rest, prefix),
        _ => at,
    }
}

/// Length of a block comment, which may hold others.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[char], from: usize, hashes: usize) -> usize {
    let closes = |at: &usize| rest[*at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (from..rest.len()).find(closes).map_or(rest.len(), |at| at + 1 + hashes)
}

/// Length of a literal that runs from `from` to an unescaped `end`.
fn quoted(rest: &[char], from: usize, end: char) -> usize {
    let mut at = from;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == end => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a character literal whose quote is at `quote`; 0 for a lifetime.
fn character(rest: &[char], quote: usize) -> usize {
    match (rest.get(quote + 1), rest.get(quote + 2)) {
        (Some('\\'), _) => quoted(rest, quote + 1, '\''),
        (Some(_), Some('\'')) => quote + 3,
        _ => 0,
    }
}

/// A word, or one character of punctuation; `::` is one token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found: Vec<Token> = Vec::new();
    let mut line = 1;
    let mut chars = without_comments_and_literals(text).chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let mut word = c.to_string();
            while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                word.push(next);
            }
            found.push(Token { text: word, line });
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            found.push(Token { text: "::".to_owned(), line });
        } else if !c.is_whitespace() {
            found.push(Token { text: c.to_string(), line });
        }
    }
    found
}

/// Every path that begins with `crate`, `self`, `super` or the crate's own name, with `{a, b}` taken apart.
pub(crate) fn paths(path_in_src: &str, text: &str) -> Vec<Named> {
    let tokens = tokens(text);
    let mut walk = Walk { tokens: &tokens, at: 0, file: module_of(path_in_src), scopes: Vec::new(), found: Vec::new() };
    walk.run();
    walk.found
}

struct Walk<'a> {
    tokens: &'a [Token],
    at: usize,
    file: Vec<String>,
    /// Open braces: an inline module's name and whether it is for tests only, `None` for any other.
    scopes: Vec<Option<(String, bool)>>,
    found: Vec<Named>,
}

impl Walk<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |t| t.text.as_str())
    }

    fn run(&mut self) {
        let mut test_only = false;
        while self.at < self.tokens.len() {
            let at = self.at;
            match self.text(at) {
                "cfg" if self.text(at + 2) == "test" => test_only = true,
                "mod" if self.text(at + 2) == "{" => {
                    self.scopes.push(Some((self.text(at + 1).to_owned(), test_only)));
                    test_only = false;
                    self.at += 2;
                }
                "{" => {
                    self.scopes.push(None);
                    test_only = false;
                }
                "}" => drop(self.scopes.pop()),
                ";" => test_only = false,
                "crate" | "self" | "super" | "stockgate" if self.text(at + 1) == "::" && !self.continues(at) => {
                    let base = self.base();
                    self.tree(base);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// The token is the middle of a longer path.
    fn continues(&self, at: usize) -> bool {
        at > 0 && self.text(at - 1) == "::"
    }

    /// Reads the head of a path and `::`; the module that it stands for.
    fn base(&mut self) -> Vec<String> {
        let mut base = self.file.clone();
        base.extend(self.scopes.iter().flatten().map(|(name, _)| name.clone()));
        while matches!(self.text(self.at), "crate" | "stockgate" | "self" | "super") && self.text(self.at + 1) == "::" {
            match self.text(self.at) {
                "super" => drop(base.pop()),
                "self" => {}
                _ => base.clear(),
            }
            self.at += 2;
        }
        base
    }

    /// Reads what follows a `::`: a name and perhaps more, a group, or a star.
    fn tree(&mut self, mut prefix: Vec<String>) {
        loop {
            let text = self.text(self.at).to_owned();
            if text == "{" {
                self.at += 1;
                return self.group(&prefix);
            }
            if !text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
                return self.name(prefix);
            }
            match text.as_str() {
                "self" => {}
                "super" => drop(prefix.pop()),
                _ => prefix.push(text),
            }
            self.at += 1;
            if self.text(self.at) != "::" {
                return self.name(prefix);
            }
            self.at += 1;
        }
    }

    fn group(&mut self, prefix: &[String]) {
        while self.at < self.tokens.len() {
            match self.text(self.at) {
                "}" => {
                    self.at += 1;
                    return;
                }
                "," => self.at += 1,
                "as" => self.at += 2,
                "*" => {
                    self.name(prefix.to_vec());
                    self.at += 1;
                }
                // the crate's modules inside `use {..}`: heads of their own
                "crate" | "super" | "stockgate" if prefix.is_empty() => {
                    let base = self.base();
                    self.tree(base);
                }
                _ => {
                    let before = self.at;
                    self.tree(prefix.to_vec());
                    if self.at == before {
                        self.at += 1;
                    }
                }
            }
        }
    }

    fn name(&mut self, segments: Vec<String>) {
        let line = self.tokens.get(self.at.saturating_sub(1)).map_or(1, |t| t.line);
        let in_tests = self.scopes.iter().flatten().any(|(_, test_only)| *test_only);
        self.found.push(Named { segments, line, in_tests });
    }
}

#[test]
fn paths_are_found_and_made_absolute() {
    let text = r##"
        //! [`crate::app`] in a comment
        use crate::types::{Fact, name::{self, Sku}, *};
        use super::{json, super::limits as l};
        use super::super::store::rows;
        pub(crate) fn f<'a>(x: &'a crate::net::client::Client<crate::time::Timestamp>) {
            /* crate::app /* nested */ crate::app */
            let c = ('{', '\'', b'"', "crate::app {", r#"crate::app " {"#);
            $crate::metrics::reload(self::part::of());
        }
        #[cfg(test)]
        mod tests { use super::*; use crate::config; }
        fn after() { crate::api::x() }
    "##;
    let found: Vec<(String, usize, bool)> =
        paths("sources/bsale/mod.rs", text).into_iter().map(|n| (n.to_string(), n.line, n.in_tests)).collect();
    let expected = [
        ("types::Fact", 3, false),
        ("types::name", 3, false),
        ("types::name::Sku", 3, false),
        ("types", 3, false),
        ("sources::json", 4, false),
        ("limits", 4, false),
        ("store::rows", 5, false),
        ("net::client::Client", 6, false),
        ("time::Timestamp", 6, false),
        ("metrics::reload", 9, false),
        ("sources::bsale::part::of", 9, false),
        ("sources::bsale", 12, true),
        ("config", 12, true),
        ("api::x", 13, false),
    ];
    assert_eq!(found, expected.map(|(path, line, tests)| (path.to_owned(), line, tests)));
}

#[test]
fn a_file_knows_its_module() {
    assert_eq!(module_of("sources/bsale/mod.rs"), ["sources", "bsale"]);
    assert_eq!(module_of("net/serve.rs"), ["net", "serve"]);
    assert!(module_of("lib.rs").is_empty());
}
