//! Comparing and copying as the binaries for musl do it.

use proptest::prelude::*;
use stockgate_native::memory;

/// Of every length that is treated in its own way.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0_usize..70, 1 => 70_usize..2100, 1 => Just(4096_usize)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn bytes_compare_as_slices_do(
        (left, change, at) in lengths().prop_flat_map(|n| {
            (proptest::collection::vec(any::<u8>(), n), any::<u8>(), any::<prop::sample::Index>())
        }),
        skew in 0_usize..9,
    ) {
        let mut right = left.clone();
        prop_assert_eq!(memory::compare(&left, &right), Some(std::cmp::Ordering::Equal));
        if !right.is_empty() {
            let at = at.index(right.len());
            right[at] = change;
        }
        prop_assert_eq!(memory::compare(&left, &right), Some(left.cmp(&right)));
        // of any alignment
        let (a, b) = (left.get(skew..).unwrap_or_default(), right.get(skew..).unwrap_or_default());
        prop_assert_eq!(memory::compare(a, b), Some(a.cmp(b)));
        prop_assert_eq!(memory::compare(b, a), Some(b.cmp(a)));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_copy_is_the_same_and_nothing_beside_it_changes(bytes in lengths(), from in 0_usize..40, to in 0_usize..40) {
        let source: Vec<u8> = (0..bytes + 80).map(|i| u8::try_from(i % 251).expect("small")).collect();
        let mut copied = vec![0xAA; bytes + 80];
        memory::copy(&mut copied[to..to + bytes], &source[from..from + bytes]);
        let mut expected = vec![0xAA; bytes + 80];
        expected[to..to + bytes].copy_from_slice(&source[from..from + bytes]);
        prop_assert_eq!(copied, expected);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn bytes_move_over_one_another(bytes in lengths(), from in 0_usize..130, to in 0_usize..130) {
        let mut moved: Vec<u8> = (0..bytes + 140).map(|i| u8::try_from(i % 251).expect("small")).collect();
        let mut expected = moved.clone();
        memory::move_within(&mut moved, from, to, bytes);
        expected.copy_within(from..from + bytes, to);
        prop_assert_eq!(moved, expected);
    }
}
