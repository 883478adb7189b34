//! Keeps a listener's certificate new, beside the way of the deliveries: nothing here stops a start or a delivery.
//!
//! - [`watch`]: an operator's own files, taken when they change and fit.
//! - [`renew`]: certificates from an ACME server, ordered before they are due.
//! - [`kept`]: what ACME leaves in the data directory: `acme/account-*.json`, `acme/certificate.pem`, `acme/standing.json`.
//!
//! Either hands a pair to the [`Identity`](crate::net::tls::Identity) and lets it judge: what cannot be used is not taken, and the
//! one before stays.

pub mod kept;
pub mod renew;
pub mod watch;

#[cfg(test)]
mod tests;
