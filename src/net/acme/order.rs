//! One order, from its names to its certificate.

use std::sync::Arc;

use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeStatus, Error, Identifier, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenge::Challenges;
use super::reason::words;
use super::{Account, Failure, Proof, Reason};
use crate::limits;

/// What is ordered.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Host names, at least one.
    pub names: &'a [String],
    /// How they are proven.
    pub proof: Proof,
    /// The certificate that this one replaces ([`crate::net::tls::Identity::renewal_id`]); servers favour renewals.
    pub replaces: Option<&'a (String, String)>,
}

/// A new certificate.
pub struct Issued {
    /// PEM: the leaf, then its authorities.
    pub chain_pem: String,
    /// PEM: the leaf's private key, made for it. A secret.
    pub key_pem: String,
}

/// Takes the challenges down when an attempt ends, however it ends.
struct Placed(Arc<Challenges>);

impl Drop for Placed {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Account<'_> {
    /// Order a certificate, prove every name, fetch it. `challenges` must be shown by a listener that the server reaches.
    pub async fn obtain(&self, wanted: &Order<'_>, challenges: Arc<Challenges>) -> Result<Issued, Failure> {
        let mut order = self.place(wanted).await?;
        let placed = Placed(challenges);
        self.answer(&mut order, wanted.proof, &placed.0).await?;
        let policy = policy();
        let ready = order.poll_ready(&policy).await;
        if !matches!(ready, Ok(OrderStatus::Ready)) {
            return Err(self.explain(&mut order, ready.err()).await);
        }
        drop(placed);
        let failed = |error: Error| Failure::of(&error, self.http, Reason::Order, "the certificate");
        let own = |error: rcgen::Error| Failure::new(Reason::Certificate, format!("no request can be made: {error}"));
        let key = KeyPair::generate().map_err(own)?;
        let mut params = CertificateParams::new(wanted.names.to_vec()).map_err(own)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(own)?;
        order.finalize_csr(request.der()).await.map_err(failed)?;
        let chain_pem = order.poll_certificate(&policy).await.map_err(failed)?;
        Ok(Issued { chain_pem, key_pem: key.serialize_pem() })
    }

    async fn place(&self, wanted: &Order<'_>) -> Result<instant_acme::Order, Failure> {
        let names: Vec<Identifier> = wanted.names.iter().cloned().map(Identifier::Dns).collect();
        let new = || NewOrder::new(&names);
        let failed = |error: Error| Failure::of(&error, self.http, Reason::Order, "the order");
        let Some((authority, serial)) = wanted.replaces.filter(|_| self.renewal_info) else {
            return self.inner.new_order(&new()).await.map_err(failed);
        };
        let replaces =
            CertificateIdentifier { authority_key_identifier: authority.as_str().into(), serial: serial.as_str().into() };
        match self.inner.new_order(&new().replaces(replaces)).await {
            Ok(order) => Ok(order),
            Err(error) => {
                let failure = failed(error);
                if failure.reason != Reason::Order {
                    return Err(failure);
                }
                // RFC 9773, section 5: what is replaced already, or of another account, is an order of its own
                tracing::debug!(%failure, "not taken as a replacement: ordered anew");
                self.inner.new_order(&new()).await.map_err(failed)
            }
        }
    }

    /// Show what proves each name, then say so.
    async fn answer(
        &self,
        order: &mut instant_acme::Order,
        proof: Proof,
        challenges: &Arc<Challenges>,
    ) -> Result<(), Failure> {
        let failed = |error: Error| Failure::of(&error, self.http, Reason::Challenge, "the challenge");
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(failed)?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            let none = || Failure::new(Reason::Challenge, format!("{name}: the server does not offer {}", proof.as_str()));
            let mut challenge = authorization.challenge(proof.kind()).ok_or_else(none)?;
            let key = challenge.key_authorization();
            match proof {
                Proof::Http01 => challenges.await_request(&challenge.token, key.as_str()),
                Proof::TlsAlpn01 => challenges
                    .await_handshake(&name, key.digest().as_ref())
                    .map_err(|error| Failure::new(Reason::Challenge, format!("{name}: {error}")))?,
            }
            if challenge.status == ChallengeStatus::Pending {
                // a fast server answers with the outcome
                let failed = |error| Failure::of(&error, self.http, Reason::Challenge, &format!("{name} is not proven"));
                challenge.set_ready().await.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Why an order did not become ready: the challenges know more than the order.
    async fn explain(&self, order: &mut instant_acme::Order, error: Option<Error>) -> Failure {
        let general = match &error {
            Some(error) => Failure::of(error, self.http, Reason::Order, "the order"),
            None => Failure::new(Reason::Order, "the order: the server has made it invalid"),
        };
        if matches!(general.reason, Reason::Unreachable | Reason::RateLimited | Reason::Server) {
            return general;
        }
        let mut told = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            // what was read before the challenge was checked says nothing
            if authorization.refresh().await.is_err() {
                break;
            }
            let name = authorization.identifier().to_string();
            let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            told.extend(errors.map(|problem| format!("{name} is not proven: {}", words(problem))));
        }
        if told.is_empty() {
            return general;
        }
        Failure { retry_after: general.retry_after, ..Failure::new(Reason::Challenge, told.join("; ")) }
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy::new().initial_delay(limits::ACME_POLL_PAUSE).backoff(1.3).timeout(limits::ACME_ORDER_TIMEOUT)
}
