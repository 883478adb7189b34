//! What is asked of the API: the keys of needs, and the requests they become.
//!
//! | key | request |
//! |---|---|
//! | `report/bystore/stock` | the brief report of what changed since `from`; without `from` the whole of it |
//! | `report/bystore/stock/again` | the same, once more, after rows under recalculation |
//! | `item/bystore/stock/<item>[/<store>]` | the brief report of one item |
//! | `catalogue/<item>` | the assortment's entry of one item |
//!
//! A key says by itself how its answer is read, so a change of the settings does not change what an old answer meant.

use crate::time::Timestamp;
use crate::types::{Measure, Need};

/// The version of the API whose meaning this adapter knows.
const ROOT: &str = "/api/remap/1.2";
/// The vendor's times are Moscow's, east of UTC by this many hours, on every market.
pub(super) const MOSCOW: i64 = 3;

/// Which of the two reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    ByStore,
    All,
}

impl Scope {
    pub(super) const WORDS: &'static [(&'static str, Self)] = &[("bystore", Self::ByStore), ("all", Self::All)];
}

/// Which number (`stockType`); a row carries it under this very name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Stock,
    FreeStock,
    Quantity,
}

impl Count {
    pub(super) const WORDS: &'static [(&'static str, Self)] =
        &[("stock", Self::Stock), ("freeStock", Self::FreeStock), ("quantity", Self::Quantity)];

    pub(super) const fn measure(self) -> Measure {
        match self {
            Self::Stock => Measure::OnHand,
            Self::FreeStock | Self::Quantity => Measure::Available,
        }
    }
}

fn by_word<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    words.iter().find(|(w, _)| *w == word).map(|(_, t)| *t)
}

fn word_of<T: PartialEq>(words: &[(&'static str, T)], of: &T) -> &'static str {
    words.iter().find(|(_, t)| t == of).map_or("", |(w, _)| w)
}

/// A key, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    Report { scope: Scope, count: Count, again: bool },
    Item { scope: Scope, count: Count, item: &'a str, store: Option<&'a str> },
    Catalogue { item: &'a str },
}

impl<'a> Ask<'a> {
    /// Read a key; `None` when it is not ours.
    pub(super) fn of(key: &'a str) -> Option<Self> {
        let parts: Vec<&str> = key.split('/').collect();
        let scope = |word| by_word(Scope::WORDS, word);
        let count = |word| by_word(Count::WORDS, word);
        let ask = match *parts.as_slice() {
            ["report", s, c] => Self::Report { scope: scope(s)?, count: count(c)?, again: false },
            ["report", s, c, "again"] => Self::Report { scope: scope(s)?, count: count(c)?, again: true },
            ["item", s, c, item] => Self::Item { scope: scope(s)?, count: count(c)?, item, store: None },
            ["item", s, c, item, store] => Self::Item { scope: scope(s)?, count: count(c)?, item, store: Some(store) },
            ["catalogue", item] => Self::Catalogue { item },
            _ => return None,
        };
        ask.is_safe().then_some(ask)
    }

    /// The key.
    pub(super) fn key(&self) -> Box<str> {
        let scope = |s| word_of(Scope::WORDS, s);
        let count = |c| word_of(Count::WORDS, c);
        match self {
            Self::Report { scope: s, count: c, again } => {
                format!("report/{}/{}{}", scope(s), count(c), if *again { "/again" } else { "" })
            }
            Self::Item { scope: s, count: c, item, store: None } => format!("item/{}/{}/{item}", scope(s), count(c)),
            Self::Item { scope: s, count: c, item, store: Some(store) } => {
                format!("item/{}/{}/{item}/{store}", scope(s), count(c))
            }
            Self::Catalogue { item } => format!("catalogue/{item}"),
        }
        .into()
    }

    /// A need without a window; `None` when an id cannot be asked for.
    pub(super) fn need(&self) -> Option<Need> {
        self.is_safe().then(|| Need { key: self.key(), from: None })
    }

    fn is_safe(&self) -> bool {
        match self {
            Self::Report { .. } => true,
            Self::Item { item, store, .. } => is_id(item) && store.is_none_or(is_id),
            Self::Catalogue { item } => is_id(item),
        }
    }

    /// Path and query, percent-encoded.
    pub(super) fn target(&self, from: Option<Timestamp>) -> String {
        match self {
            Self::Report { scope, count, .. } => match from {
                // zero rows come by themselves with a window
                Some(from) => report(*scope, *count, &format!("changedSince={}", encode(&from.format_naive(MOSCOW)))),
                None => report(*scope, *count, "include=zeroLines"),
            },
            Self::Item { scope, count, item, store } => {
                let filter = match store {
                    Some(store) => format!("assortmentId={item};storeId={store}"),
                    None => format!("assortmentId={item}"),
                };
                report(*scope, *count, &format!("filter={}&include=zeroLines", encode(&filter)))
            }
            Self::Catalogue { item } => format!("{ROOT}/entity/assortment?filter={}", encode(&format!("id={item}"))),
        }
    }
}

fn report(scope: Scope, count: Count, query: &str) -> String {
    // Without this, rows under recalculation would be left out, and nobody would know.
    let recalculating = match scope {
        Scope::ByStore => "&withRecalculate=true",
        Scope::All => "",
    };
    let scope = word_of(Scope::WORDS, &scope);
    let count = word_of(Count::WORDS, &count);
    format!("{ROOT}/report/stock/{scope}/current?{query}&stockType={count}{recalculating}")
}

/// An id as the vendor makes them (UUIDs), and nothing that could mean something in a path, a query or a filter.
pub(super) fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Percent-encode everything but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes every write");
        }
        out
    })
}
