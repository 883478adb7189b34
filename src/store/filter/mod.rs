//! Is a key among these? A binary fuse filter over 64-bit hashes: nine bits a key, no false "no", one false "yes" in 256.
//!
//! [`Filter`] is asked about one set, [`Filters`] about many at once.

mod many;

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter as _, FilterRef};

use super::StoreError;
use super::codec::{Reader, Writer};
pub(super) use many::Filters;

/// Most keys of one part: to build a part takes some twenty-five bytes for each of its keys.
const PART_KEYS: usize = if cfg!(test) { 64 } else { 32_768 };

/// The last step of `MurmurHash3`: every bit of the result depends on every bit of the number.
pub(super) fn mix(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// A filter over a set that does not change any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    /// By the first bits of the hash: one part, or two, four, eight, ...
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Default)]
struct Part {
    /// Empty: it could not be built (never seen: 64-bit hashes that defy construction), and says yes to everything.
    descriptor: Vec<u8>,
    fingerprints: Vec<u8>,
}

impl Filter {
    /// Over hashes in any order; one may come twice.
    pub(super) fn of(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        let mut parts = 1;
        while hashes.len() > parts * PART_KEYS {
            parts *= 2;
        }
        let mut rest = hashes.as_slice();
        let mut filter = Self { parts: Vec::with_capacity(parts) };
        for part in 0..parts {
            let (these, others) = rest.split_at(rest.partition_point(|hash| part_of(*hash, parts) <= part));
            filter.parts.push(Part::of(these));
            rest = others;
        }
        filter
    }

    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.parts.get(part_of(hash, self.parts.len())).is_none_or(|part| part.may_hold(hash))
    }

    /// Append it to a row.
    pub(super) fn encode(&self, w: &mut Writer) {
        w.count(self.parts.len() as u64);
        for part in &self.parts {
            w.bytes(&part.descriptor).bytes(&part.fingerprints);
        }
    }

    /// Take it off a row.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, StoreError> {
        let parts: usize = r.small("parts of a filter")?;
        if !parts.is_power_of_two() {
            return Err(StoreError::Row(format!("a filter has {parts} parts")));
        }
        let mut filter = Self::default();
        for _ in 0..parts {
            let (descriptor, fingerprints) = (r.bytes("descriptor")?.to_vec(), r.bytes("fingerprints")?.to_vec());
            if !descriptor.is_empty() && descriptor.len() != BinaryFuse8::DESCRIPTOR_LEN {
                return Err(StoreError::Row("filter descriptor has the wrong length".into()));
            }
            filter.parts.push(Part { descriptor, fingerprints });
        }
        Ok(filter)
    }

    /// About how many bytes its row has.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.descriptor.len() + part.fingerprints.len() + 8).sum()
    }
}

/// The part for a hash, of so many: a power of two.
fn part_of(hash: u64, parts: usize) -> usize {
    let bits = parts.trailing_zeros();
    usize::try_from(hash.checked_shr(u64::BITS - bits).unwrap_or(0)).unwrap_or(0)
}

impl Part {
    fn of(hashes: &[u64]) -> Self {
        let Ok(filter) = BinaryFuse8::try_from(hashes) else { return Self::default() };
        let mut descriptor = vec![0; BinaryFuse8::DESCRIPTOR_LEN];
        filter.dma_copy_descriptor_to(&mut descriptor);
        Self { descriptor, fingerprints: filter.dma_fingerprints().to_vec() }
    }

    fn may_hold(&self, hash: u64) -> bool {
        self.descriptor.is_empty() || BinaryFuse8Ref::from_dma(&self.descriptor, &self.fingerprints).contains(&hash)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_in_it_is_found_and_most_of_the_rest_is_not(
            mut hashes in proptest::collection::vec(any::<u64>(), 0..1000),
            others in proptest::collection::vec(any::<u64>(), 1000),
        ) {
            hashes.extend(hashes.clone().iter().take(3));
            let built = Filter::of(hashes.clone());
            let mut w = Writer::default();
            built.encode(&mut w);
            let row = w.finish();
            let mut r = Reader::new(&row);
            let read = Filter::decode(&mut r).expect("reads");
            r.end("filter").expect("nothing is left");
            for filter in [&built, &read] {
                prop_assert!(hashes.iter().all(|hash| filter.may_hold(*hash)));
                let strangers = others.iter().filter(|hash| filter.may_hold(**hash)).count();
                prop_assert!(strangers < 60, "{strangers} of 1000 would be looked up in vain");
            }
            for cut in 0..row.len() {
                prop_assert!(Filter::decode(&mut Reader::new(&row[..cut])).is_err());
            }
        }
    }

    #[test]
    fn a_filter_that_says_nothing_is_no_filter() {
        assert!(Filter::default().may_hold(7));
        assert!(matches!(Filter::decode(&mut Reader::new(&[3])), Err(StoreError::Row(_))));
        assert!(Filter { parts: vec![Part::default()] }.may_hold(7));
    }
}
