//! Rows that were appended since the last checkpoint, as they will stand in the file.

/// Rows with consecutive numbers, encoded.
#[derive(Debug, Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    /// Where each row ends.
    ends: Vec<u32>,
}

impl Pending {
    /// Append a row; its bytes.
    pub(super) fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(u32::try_from(self.bytes.len()).expect("a checkpoint is due at a few MiB"));
    }

    /// Rows.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// About how much memory is in use.
    pub(super) fn memory(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<u32>()
    }

    /// A row by its place, from 0.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start as usize..*self.ends.get(index)? as usize)
    }

    /// The row of a number, when the newest row has the number `last`.
    pub(super) fn numbered(&self, number: u64, last: u64) -> Option<&[u8]> {
        let from_end = usize::try_from(last.checked_sub(number)?).ok()?;
        self.get(self.len().checked_sub(from_end)?.checked_sub(1)?)
    }

    /// All rows with their numbers, when the newest has the number `last`.
    pub(super) fn all(&self, last: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let first = last + 1 - self.len() as u64;
        (first..).zip((0..self.len()).filter_map(|index| self.get(index)))
    }

    /// They are in the file. The memory stays for the next ones.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_their_numbers() {
        let mut rows = Pending::default();
        assert_eq!(rows.numbered(7, 7), None);
        for row in [&b"a"[..], b"", b"ccc"] {
            rows.push(row);
        }
        assert_eq!(rows.numbered(10, 10), Some(&b"ccc"[..]));
        assert_eq!(rows.numbered(9, 10), Some(&b""[..]));
        assert_eq!(rows.numbered(8, 10), Some(&b"a"[..]));
        assert_eq!((rows.numbered(7, 10), rows.numbered(11, 10)), (None, None));
        assert_eq!(rows.all(10).map(|(n, r)| (n, r.len())).collect::<Vec<_>>(), [(8, 1), (9, 0), (10, 3)]);
        rows.clear();
        assert_eq!(rows.all(10).count(), 0);
    }
}
