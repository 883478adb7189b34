//! WordPress' escapes in a stored secret: `wp_specialchars_decode` with both sorts of quotes.

/// Longest escape looked at, after `&`: leading zeros are legal, secrets are short.
const ESCAPE_MAX_BYTES: usize = 16;

/// The text without its escapes, or `None` when it holds none. One pass: `&amp;lt;` becomes `&lt;`.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut found = false;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'&'
            && let Some((byte, length)) = escape(after)
        {
            found = true;
            out.push(byte);
            rest = after.get(length..).unwrap_or_default();
        } else {
            out.push(first);
        }
    }
    found.then_some(out)
}

/// The character that an escape stands for, and the escape's length after `&`, semicolon included.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    let end = text.iter().take(ESCAPE_MAX_BYTES).position(|b| *b == b';')?;
    let byte = match text.get(..end)? {
        b"quot" => b'"',
        b"lt" => b'<',
        b"gt" => b'>',
        b"amp" => b'&',
        name => numbered(std::str::from_utf8(name).ok()?.strip_prefix('#')?)?,
    };
    Some((byte, end + 1))
}

/// `039` or `x27`, with any number of zeros in front; WordPress knows `<` and `>` in decimal only.
fn numbered(number: &str) -> Option<u8> {
    if let Some(hex) = number.strip_prefix(['x', 'X']) {
        return match hex.trim_start_matches('0') {
            "22" => Some(b'"'),
            "26" => Some(b'&'),
            "27" => Some(b'\''),
            _ => None,
        };
    }
    match number.trim_start_matches('0') {
        "34" => Some(b'"'),
        "38" => Some(b'&'),
        "39" => Some(b'\''),
        "60" => Some(b'<'),
        "62" => Some(b'>'),
        _ => None,
    }
}
