//! What stockgate needs below safe Rust.
//!
//! **Memory is given back to the system at once.** mimalloc keeps what was freed for a second, and longer in a thread that allocates
//! nothing: its delay is no timer. Here a checkpoint frees megabytes in one thread that another one takes next. Measured while a state was rebuilt from 612,000 deliveries: a peak of 93 to 97 MB
//! with mimalloc's delay, 78 MB with 1 to 50 milliseconds, 75 to 81 MB without; the CPU time was the same.
//!
//! **Comparing and copying**, with musl: see `memory.c`, which is linked instead of musl's own. Measured in turns, for
//! a rebuild of 612,000 deliveries: 7.8, 6.7 and 7.9 s of CPU time with musl's, 5.9, 5.4 and 6.5 s with these.

use std::ffi::c_int;

use libmimalloc_sys::{mi_option_get, mi_option_set};

/// `mi_option_purge_delay` of mimalloc 3, in milliseconds. The Rust crate does not name it.
const PURGE_DELAY: c_int = 15;
/// What it is unless somebody has said otherwise (`MIMALLOC_PURGE_DELAY`).
const DEFAULT_MILLISECONDS: i64 = 1000;

/// Give freed memory back at once, unless the environment asks for something else. What the delay is then, in milliseconds.
pub fn give_back_at_once() -> i64 {
    // SAFETY: both read or write one atomic number in a table of options, and check the index against its length.
    unsafe {
        if i64::from(mi_option_get(PURGE_DELAY)) == DEFAULT_MILLISECONDS {
            mi_option_set(PURGE_DELAY, 0);
        }
        i64::from(mi_option_get(PURGE_DELAY))
    }
}

/// The functions of `memory.c`, under the names that they have where the C library's own are used: for tests.
#[cfg(not(target_env = "musl"))]
pub mod memory {
    use std::cmp::Ordering;
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn stockgate_memcmp(left: *const c_void, right: *const c_void, bytes: usize) -> c_int;
        fn stockgate_bcmp(left: *const c_void, right: *const c_void, bytes: usize) -> c_int;
        #[cfg(target_arch = "x86_64")]
        fn stockgate_memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
        #[cfg(target_arch = "x86_64")]
        fn stockgate_memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
    }

    /// How two slices of one length compare; `None` when the two functions do not agree.
    pub fn compare(left: &[u8], right: &[u8]) -> Option<Ordering> {
        assert_eq!(left.len(), right.len());
        // SAFETY: both have this many bytes.
        let (order, unequal) = unsafe {
            let (a, b) = (left.as_ptr().cast(), right.as_ptr().cast());
            (stockgate_memcmp(a, b, left.len()), stockgate_bcmp(a, b, left.len()))
        };
        ((order != 0) == (unequal != 0)).then(|| order.cmp(&0))
    }

    /// Copy between two slices.
    #[cfg(target_arch = "x86_64")]
    pub fn copy(to: &mut [u8], from: &[u8]) {
        assert_eq!(to.len(), from.len());
        // SAFETY: both have this many bytes, and one of them is borrowed alone, so they do not overlap.
        let back = unsafe { stockgate_memcpy(to.as_mut_ptr().cast(), from.as_ptr().cast(), from.len()) };
        assert_eq!(back.cast(), to.as_mut_ptr());
    }

    /// Move bytes within a slice.
    #[cfg(target_arch = "x86_64")]
    pub fn move_within(slice: &mut [u8], from: usize, to: usize, bytes: usize) {
        assert!(from + bytes <= slice.len() && to + bytes <= slice.len());
        // SAFETY: both ranges lie in the slice.
        unsafe {
            let base = slice.as_mut_ptr();
            let back = stockgate_memmove(base.add(to).cast(), base.add(from).cast(), bytes);
            assert_eq!(back.cast(), base.add(to));
        }
    }
}
