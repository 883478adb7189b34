//! `/`: a small page for people. No script, nothing loaded from anywhere.

use std::fmt::Write;
use std::sync::Arc;

use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};

use super::Shared;
use super::problem::{Answer, answer};
use super::sources::{self, Listed};
use super::status::{Certificate, Status};
use super::stock::{sum_text, when};
use crate::time;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}\
table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #ccc}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:#b00}";

/// Only the style above, no frames around it, no referrer for the links.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
pub(super) async fn page(shared: &Arc<Shared>) -> Answer {
    let (since, configured, now) = (shared.since(), shared.configured(), time::now());
    let html = shared
        .read(move |state, context| {
            let status = Status::of(state, context, since, configured.len());
            let warehouses: Vec<[String; 7]> = state
                .warehouses()
                .map(|(name, t)| {
                    let counts = [t.in_stock, t.out, t.low, t.negative].map(|n| n.to_string());
                    let [in_stock, out, low, negative] = counts;
                    [
                        name.to_owned(),
                        sum_text(t.units),
                        in_stock,
                        out,
                        low,
                        negative,
                        when(t.last_event).unwrap_or_default(),
                    ]
                })
                .collect();
            Ok(html(&status, &warehouses, &sources::all(state, configured, now)))
        })
        .await?;
    let mut page = answer(StatusCode::OK, "text/html; charset=utf-8", html);
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    page.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(page)
}

fn html(status: &Status, warehouses: &[[String; 7]], sources: &[Listed]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>stockgate</title><style>{STYLE}</style>\n\
         <h1>stockgate {}</h1>\n<p>{}, up {} s. Journal at {}, folded to {} ({} behind). Ledger #{}. {} levels, \
         <a href=\"/api/v1/dead-letters\">{} dead letters</a>, {} fetches waiting.</p>\n",
        escape(status.version),
        if status.ready { "Ready" } else { "<b class=\"bad\">Not ready</b>" },
        status.uptime_seconds,
        status.journal.head,
        status.fold.cursor,
        status.fold.lag_records,
        status.ledger.sequence,
        status.levels,
        status.dead_letters,
        status.fetch_tasks,
    );
    certificate(&mut page, &status.certificate);
    let heads = ["Warehouse", "Units", "In stock", "Out", "Low", "Negative", "Last change"];
    table(&mut page, &heads, 1..6, warehouses.iter().map(|row| row.iter().map(String::as_str).collect()));
    let rows: Vec<[String; 4]> = sources
        .iter()
        .map(|s| {
            let kind = s.kind.clone().unwrap_or_else(|| "not configured any more".to_owned());
            [s.source.clone(), kind, s.accepted.to_string(), s.last_delivery.clone().unwrap_or_else(|| "never".to_owned())]
        })
        .collect();
    let heads = ["Source", "Kind", "Accepted", "Last delivery"];
    table(&mut page, &heads, 2..3, rows.iter().map(|row| row.iter().map(String::as_str).collect()));
    page.push_str("<p>");
    for (link, words) in [
        ("/readyz?verbose", "readiness"),
        ("/metrics", "metrics"),
        ("/api/v1/stock", "stock"),
        ("/api/v1/warehouses", "warehouses"),
        ("/api/v1/sources", "sources"),
        ("/api/v1/status", "status"),
        ("/api/v1/openapi.json", "the API"),
    ] {
        write!(page, "<a href=\"{link}\">{words}</a> ").expect("writing into a String does not fail");
    }
    page.push_str("</p>\n</html>\n");
    page
}

/// Until when the certificate is good, and what is wrong with the next one.
fn certificate(page: &mut String, certificate: &Certificate) {
    write!(page, "<p>Certificate until {}.", escape(&certificate.not_after)).expect("writing into a String does not fail");
    let acme = certificate.acme.as_ref().and_then(|acme| acme.last_failure.as_ref()).map(|failure| &failure.message);
    for why in [certificate.refused.as_ref(), acme].into_iter().flatten() {
        write!(page, " <b class=\"bad\">{}</b>", escape(why)).expect("writing into a String does not fail");
    }
    page.push_str("</p>\n");
}

fn table<'a>(page: &mut String, heads: &[&str], numbers: std::ops::Range<usize>, rows: impl Iterator<Item = Vec<&'a str>>) {
    let class = |i: usize| if numbers.contains(&i) { " class=\"n\"" } else { "" };
    page.push_str("<table>\n");
    let mut line = |cell: &str, texts: &[&str]| {
        page.push_str("<tr>");
        for (i, text) in texts.iter().enumerate() {
            write!(page, "<{cell}{}>{}</{cell}>", class(i), escape(text)).expect("writing into a String does not fail");
        }
        page.push_str("</tr>\n");
    };
    line("th", heads);
    for row in rows {
        line("td", &row);
    }
    page.push_str("</table>\n");
}

/// Text inside HTML. Names come from configuration and platforms.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_markup() {
        let mut page = String::new();
        table(&mut page, &["Name"], 0..0, [vec!["<script>alert('1')</script> & \"x\""]].into_iter());
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;x&quot;"), "{page}");
        assert!(!page.contains("<script"));
    }
}
