//! What is asked of the API: the keys of needs, and the requests they become.
//!
//! | key | request |
//! |---|---|
//! | `stock/<variant>/<office>` | the stock of a variant at an office |
//! | `stock/<variant>` | the stock of a variant at every office |
//! | `document/<id>` | the stock of every variant of a document |
//! | `catalogue/<variant>` | the variant, for its code |

use crate::types::Need;

/// Rows asked for at once: an expanded answer is cut off at this many.
const PAGE_ROWS: u32 = 25;

/// A key, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask<'a> {
    Stock { variant: &'a str, office: Option<&'a str> },
    Document { document: &'a str },
    Variant { variant: &'a str },
}

impl<'a> Ask<'a> {
    /// Read a key; `None` when it is not ours.
    pub(super) fn of(key: &'a str) -> Option<Self> {
        let parts: Vec<&str> = key.split('/').collect();
        let ask = match *parts.as_slice() {
            ["stock", variant] => Self::Stock { variant, office: None },
            ["stock", variant, office] => Self::Stock { variant, office: Some(office) },
            ["document", document] => Self::Document { document },
            ["catalogue", variant] => Self::Variant { variant },
            _ => return None,
        };
        ask.is_safe().then_some(ask)
    }

    /// The key.
    pub(super) fn key(&self) -> Box<str> {
        match self {
            Self::Stock { variant, office: None } => format!("stock/{variant}"),
            Self::Stock { variant, office: Some(office) } => format!("stock/{variant}/{office}"),
            Self::Document { document } => format!("document/{document}"),
            Self::Variant { variant } => format!("catalogue/{variant}"),
        }
        .into()
    }

    /// The need; `None` when an id cannot be asked for.
    pub(super) fn need(&self) -> Option<Need> {
        self.is_safe().then(|| Need { key: self.key(), from: None })
    }

    fn is_safe(&self) -> bool {
        match self {
            Self::Stock { variant, office } => is_id(variant) && office.is_none_or(is_id),
            Self::Document { document } => is_id(document),
            Self::Variant { variant } => is_id(variant),
        }
    }

    /// Path and query, percent-encoded; `page` is an offset. `None`: there is no such page.
    pub(super) fn target(&self, page: Option<&str>) -> Option<String> {
        let offset = page.map_or(Some(0), |p| p.parse::<u64>().ok())?;
        match self {
            Self::Stock { variant, office } => {
                let office = office.map(|o| format!("&officeid={o}")).unwrap_or_default();
                let rows = format!("limit={PAGE_ROWS}&offset={offset}&expand=%5Bvariant%5D");
                Some(format!("/v1/stocks.json?variantid={variant}{office}&{rows}"))
            }
            Self::Document { document } if offset == 0 => Some(format!("/v2/stocks/documents/{document}.json")),
            Self::Document { document } => Some(format!("/v2/stocks/documents/{document}.json?offset={offset}")),
            Self::Variant { variant } => page.is_none().then(|| format!("/v1/variants/{variant}.json")),
        }
    }
}

/// An id as the vendor makes them (whole numbers), and nothing that could mean something in a path or a query.
pub(super) fn is_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}
