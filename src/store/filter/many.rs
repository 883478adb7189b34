//! Which of many sets may hold a key?
//!
//! To ask eighty filters one after the other is to wait for memory two hundred times. Filters of equally large sets mostly have the same form and
//! seed, so the places that a key has in one it has in all: sixteen such filters are woven into one array, in which the fingerprints that belong
//! to one place of each lie side by side, and three looks answer for all of them. The rest is asked one by one.

use std::collections::BTreeMap;

use super::{Filter, Part, mix, part_of};

/// Filters that are woven together: as many as bytes in [`Places`].
const WOVEN: usize = size_of::<Places>();
/// The fingerprints of one place, one of each filter, the first in the lowest byte.
type Places = u128;
/// One in each byte.
const ONES: Places = Places::MAX / 0xff;
/// The highest bit of each byte.
const HIGHS: Places = ONES << 7;

/// Filters by number.
#[derive(Debug, Default)]
pub(in crate::store) struct Filters {
    /// By how many parts a filter has, then by part.
    rooms: BTreeMap<usize, Vec<Room>>,
}

/// What is to be asked for one part of all hashes.
#[derive(Debug, Default)]
struct Room {
    woven: Vec<Woven>,
    /// Not woven yet, the oldest first.
    single: Vec<(u64, Part)>,
}

/// Where a key's fingerprint lies: what binary fuse filters of one form and seed have in common.
#[derive(Debug, Clone, Copy)]
struct Form {
    seed: u64,
    segment: u32,
    /// Of a place in its segment.
    mask: u32,
    /// Places that a key's first one may be.
    first_places: u32,
}

#[derive(Debug)]
struct Woven {
    form: Form,
    /// Whose fingerprints each byte is; `None`: dropped since.
    numbers: [Option<u64>; WOVEN],
    places: Vec<Places>,
}

impl Filters {
    /// Add a filter with a number of its own.
    pub(in crate::store) fn push(&mut self, number: u64, filter: Filter) {
        let rooms = self.rooms.entry(filter.parts.len()).or_default();
        rooms.resize_with(filter.parts.len(), Room::default);
        for (room, part) in rooms.iter_mut().zip(filter.parts) {
            room.push(number, part);
        }
    }

    /// Drop a filter.
    pub(in crate::store) fn remove(&mut self, number: u64) {
        self.rooms.values_mut().flatten().for_each(|room| room.remove(number));
        self.rooms.retain(|_, rooms| rooms.iter().any(|room| !room.woven.is_empty() || !room.single.is_empty()));
    }

    /// Numbers of those that may hold it, in no order.
    pub(in crate::store) fn that_may_hold(&self, hash: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for (parts, rooms) in &self.rooms {
            let Some(room) = rooms.get(part_of(hash, *parts)) else { continue };
            room.woven.iter().for_each(|woven| woven.that_may_hold(hash, &mut found));
            found.extend(room.single.iter().filter(|(_, part)| part.may_hold(hash)).map(|(number, _)| number));
        }
        found
    }
}

impl Room {
    fn push(&mut self, number: u64, part: Part) {
        let form = Form::of(&part);
        let descriptor = part.descriptor.clone();
        self.single.push((number, part));
        let alike = |(_, part): &(u64, Part)| part.descriptor == descriptor;
        if let Some(form) = form
            && self.single.iter().filter(|single| alike(single)).count() == WOVEN
        {
            let (these, others) = std::mem::take(&mut self.single).into_iter().partition(alike);
            self.single = others;
            self.woven.push(Woven::of(form, these));
        }
    }

    fn remove(&mut self, number: u64) {
        self.single.retain(|(single, _)| *single != number);
        for woven in &mut self.woven {
            woven.numbers.iter_mut().filter(|of| **of == Some(number)).for_each(|of| *of = None);
        }
        self.woven.retain(|woven| woven.numbers.iter().any(Option::is_some));
    }
}

impl Form {
    /// `None` for a filter that could not be built.
    fn of(part: &Part) -> Option<Self> {
        let (seed, rest) = part.descriptor.split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let (mask, rest) = rest.split_first_chunk()?;
        let first_places = rest.first_chunk()?;
        Some(Self {
            seed: u64::from_le_bytes(*seed),
            segment: u32::from_le_bytes(*segment),
            mask: u32::from_le_bytes(*mask),
            first_places: u32::from_le_bytes(*first_places),
        })
    }

    /// A key's three places and its fingerprint, as `xorf` computes them: Graf and Lemire, "Binary Fuse Filters" (2022).
    fn places(&self, hash: u64) -> ([usize; 3], u8) {
        let h = mix(hash.wrapping_add(self.seed));
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
        let first = u32::try_from((u128::from(h) * u128::from(self.first_places)) >> 64).expect("below a number of 32 bits");
        let second = (first + self.segment) ^ (low(h >> 18) & self.mask);
        let third = (first + 2 * self.segment) ^ (low(h) & self.mask);
        let [fingerprint, ..] = (h ^ (h >> 32)).to_le_bytes();
        ([first as usize, second as usize, third as usize], fingerprint)
    }
}

impl Woven {
    fn of(form: Form, filters: Vec<(u64, Part)>) -> Self {
        let mut woven = Self { form, numbers: [None; WOVEN], places: Vec::new() };
        for (n, ((number, part), of)) in filters.into_iter().zip(&mut woven.numbers).enumerate() {
            *of = Some(number);
            woven.places.resize(part.fingerprints.len(), 0);
            for (place, fingerprint) in woven.places.iter_mut().zip(part.fingerprints) {
                *place |= Places::from(fingerprint) << (8 * n);
            }
        }
        woven
    }

    fn that_may_hold(&self, hash: u64, found: &mut Vec<u64>) {
        let (places, fingerprint) = self.form.places(hash);
        let there = places
            .into_iter()
            .fold(Places::from(fingerprint) * ONES, |sum, place| sum ^ self.places.get(place).copied().unwrap_or_default());
        // no byte is zero: the usual case, told at once
        if there.wrapping_sub(ONES) & !there & HIGHS == 0 {
            return;
        }
        found.extend(
            self.numbers.iter().zip(there.to_le_bytes()).filter(|(_, byte)| *byte == 0).filter_map(|(number, _)| *number),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Hashes of one set.
    fn set(number: u64, keys: u64) -> Vec<u64> {
        (0..keys)
            .map(|n| {
                (number << 32 | n).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn many_answer_as_each_does(
            sizes in proptest::collection::vec(prop_oneof![4 => Just(200_u64), 1 => Just(60_u64), 1 => 0_u64..300], 1..60),
            dropped in 0_u64..70,
            strangers in proptest::collection::vec(any::<u64>(), 200),
        ) {
            let (mut each, mut many) = (BTreeMap::new(), Filters::default());
            for (number, keys) in (0..).zip(&sizes) {
                each.insert(number, Filter::of(set(number, *keys)));
                many.push(number, each[&number].clone());
                // as generations age out while others come
                if let Some(old) = number.checked_sub(dropped) {
                    each.remove(&old);
                    many.remove(old);
                }
            }
            let hashes = (0..).zip(&sizes).flat_map(|(number, keys)| set(number, *keys)).chain(strangers);
            for hash in hashes {
                let mut found = many.that_may_hold(hash);
                found.sort_unstable();
                let expected: Vec<u64> = each.iter().filter(|(_, filter)| filter.may_hold(hash)).map(|(number, _)| *number).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn equal_sets_are_woven_and_let_go_when_all_of_them_are() {
        let mut many = Filters::default();
        for number in 0..80 {
            many.push(number, Filter::of(set(number, 60)));
        }
        let room = &many.rooms[&1][0];
        assert!(room.woven.len() >= 3, "{} of 80 filters were woven", room.woven.len() * WOVEN);
        assert_eq!(room.woven.len() * WOVEN + room.single.len(), 80);
        (0..79).for_each(|number| many.remove(number));
        assert_eq!(many.rooms[&1][0].woven.len() + many.rooms[&1][0].single.len(), 1);
        many.remove(79);
        assert!(many.rooms.is_empty());
        assert!(many.that_may_hold(7).is_empty());
    }

    #[test]
    fn what_could_not_be_built_is_never_woven_and_may_hold_everything() {
        let mut many = Filters::default();
        (0..40).for_each(|number| many.push(number, Filter { parts: vec![Part::default()] }));
        assert_eq!(many.that_may_hold(7), (0..40).collect::<Vec<_>>());
    }
}
