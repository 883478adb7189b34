//! UUIDs, which most platforms call their deliveries by: 16 bytes instead of 36 letters.

/// Where a UUID's text has its hyphens.
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];
/// ... and the first digits of its bytes.
const UUID_BYTES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The 16 bytes of a UUID written as RFC 9562 says, in lower case; `None` for any other text.
pub(super) fn bytes_of(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    if UUID_HYPHENS.iter().any(|at| text.get(*at) != Some(&b'-')) {
        return None;
    }
    // a digit has four bits; what is none has more
    let digit = |at: usize| match text.get(at) {
        Some(byte @ b'0'..=b'9') => byte - b'0',
        Some(byte @ b'a'..=b'f') => byte - b'a' + 10,
        _ => 0x80,
    };
    let (mut bytes, mut all) = ([0; 16], 0);
    for (byte, at) in bytes.iter_mut().zip(UUID_BYTES) {
        let (high, low) = (digit(at), digit(at + 1));
        *byte = high << 4 | low;
        all |= high | low;
    }
    (all < 0x10).then_some(bytes)
}

pub(super) fn text_of(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for byte in bytes {
        if UUID_HYPHENS.contains(&text.len()) {
            text.push('-');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble"));
        }
    }
    text
}
