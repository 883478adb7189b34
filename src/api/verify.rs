//! Is the ledger whole, and do the levels follow from it? (`store::state::Verifier` walks; this asks it to.)

use std::sync::{Arc, PoisonError};

use http::StatusCode;
use serde::Serialize;

use super::Shared;
use super::problem::{Answer, Problem, json};
use crate::store::state::{Verified, Verifier};

#[derive(Serialize)]
struct Report {
    ok: bool,
    entries: u64,
    positions: u64,
    problems: Vec<String>,
    /// Sentences about journal records that damage has taken: no fault of the ledger, but it may lack what they said.
    lost: Vec<String>,
}

/// `GET /api/v1/verify`: one walk at a time.
pub(super) async fn verify(shared: &Arc<Shared>) -> Answer {
    let Some(walk) = shared.begin_walk() else {
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "the ledger is being verified already: ask again later"));
    };
    let walking = Arc::clone(shared);
    let verified = shared
        .blocking(move || {
            let _walk = walk;
            let mut verifier = Verifier::default();
            loop {
                let state = walking.context.state.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(verified) = verifier.step(&state)? {
                    return Ok(verified);
                }
            }
        })
        .await?;
    let Verified { entries, positions, problems } = verified;
    let lost = shared.context.journal.lost().iter().map(ToString::to_string).collect();
    Ok(json(&Report { ok: problems.is_empty(), entries, positions, problems, lost }))
}
