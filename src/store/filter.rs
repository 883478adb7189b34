//! Is a key among these? A binary fuse filter over 64-bit hashes: nine bits a key, no false "no", one false "yes" in 256.

use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter as _, FilterRef};

use super::StoreError;
use super::codec::{Reader, Writer};

/// A filter over a set that does not change any more.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    descriptor: Vec<u8>,
    fingerprints: Vec<u8>,
}

impl Filter {
    /// Over hashes in any order; one may come twice.
    pub(super) fn of(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        let Ok(filter) = BinaryFuse8::try_from(&hashes) else {
            return Self { descriptor: Vec::new(), fingerprints: Vec::new() };
        };
        let mut descriptor = vec![0; BinaryFuse8::DESCRIPTOR_LEN];
        filter.dma_copy_descriptor_to(&mut descriptor);
        Self { descriptor, fingerprints: filter.dma_fingerprints().to_vec() }
    }

    pub(super) fn may_hold(&self, hash: u64) -> bool {
        // one that could not be built (never seen: 64-bit hashes that defy construction) says yes to everything
        self.descriptor.is_empty() || BinaryFuse8Ref::from_dma(&self.descriptor, &self.fingerprints).contains(&hash)
    }

    /// Append it to a row.
    pub(super) fn encode(&self, w: &mut Writer) {
        w.bytes(&self.descriptor).bytes(&self.fingerprints);
    }

    /// Take it off a row.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, StoreError> {
        let (descriptor, fingerprints) = (r.bytes("descriptor")?.to_vec(), r.bytes("fingerprints")?.to_vec());
        if !descriptor.is_empty() && descriptor.len() != BinaryFuse8::DESCRIPTOR_LEN {
            return Err(StoreError::Row("filter descriptor has the wrong length".into()));
        }
        Ok(Self { descriptor, fingerprints })
    }

    /// Bytes of its row.
    pub(super) fn bytes(&self) -> usize {
        self.descriptor.len() + self.fingerprints.len() + 8
    }
}
