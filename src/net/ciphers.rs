//! Which cipher suites, and in which order: ring's, with ChaCha20-Poly1305 first where the CPU has no AES.
//!
//! Without instructions for AES and for GCM's multiplication a CPU computes AES-GCM several times slower than ChaCha20-Poly1305. The
//! Raspberry Pi 4 and older have none. The order is ours, not the client's: a client with AES instructions would otherwise choose what is
//! slow here, and this side serves many.
//!
//! "Has" means that ring uses it, because ring does the work:
//! - x86-64: AES-NI and PCLMULQDQ; aarch64: `aes` and `pmull`, both from the auxiliary vector, not from `/proc/cpuinfo` (which
//!   `ProcSubset=pid` hides).
//! - 32-bit ARM: never, whatever the CPU can do. ring 0.17 has no such code there (its `cpu/arm.rs` knows NEON alone on `arm`).
//! - anything else: not known, so no.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedCipherSuite};

/// The one crypto provider, handed to rustls explicitly so that no other crate's features can choose another.
pub(super) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let cipher_suites = ordered(cpu_has_aes());
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
});

/// ring's suites, best first. Within AES-GCM and within ChaCha20-Poly1305 the order is rustls' own.
fn ordered(aes: bool) -> Vec<SupportedCipherSuite> {
    let suites = ring::default_provider().cipher_suites.into_iter();
    let (first, others): (Vec<_>, Vec<_>) = suites.partition(|suite| !aes && is_chacha20(suite.suite()));
    [first, others].concat()
}

fn is_chacha20(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// True when ring computes AES-GCM with the CPU's own instructions.
#[cfg(target_arch = "x86_64")]
fn cpu_has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

/// True when ring computes AES-GCM with the CPU's own instructions.
#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    // std's "aes" is AES and PMULL together
    std::arch::is_aarch64_feature_detected!("aes")
}

/// True when ring computes AES-GCM with the CPU's own instructions: not here, see above.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_aes() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(suites: &[SupportedCipherSuite]) -> Vec<&str> {
        suites.iter().map(|suite| suite.suite().as_str().expect("a suite with a name")).collect()
    }

    #[test]
    fn with_aes_it_is_aes_first() {
        let (suites, rustls) = (ordered(true), ring::default_provider().cipher_suites);
        assert_eq!(names(&suites).first(), Some(&"TLS13_AES_256_GCM_SHA384"));
        assert_eq!(names(&suites), names(&rustls), "as rustls has them");
    }

    #[test]
    fn without_aes_it_is_chacha20_first_and_nothing_is_lost() {
        let suites = ordered(false);
        let names = names(&suites);
        assert_eq!(
            names,
            [
                "TLS13_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS13_AES_256_GCM_SHA384",
                "TLS13_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ]
        );
        assert_eq!(suites.len(), ordered(true).len());
    }
}
