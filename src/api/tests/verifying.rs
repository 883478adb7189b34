//! The walk over the ledger.

use super::*;
use crate::store::state::{Verified, Verifier};

fn verify(world: &World, mut between: impl FnMut(u32)) -> Verified {
    let mut verifier = Verifier::default();
    for step in 0.. {
        let verified = verifier.step(&world.state.read().expect("not poisoned")).expect("reads");
        if let Some(verified) = verified {
            return verified;
        }
        between(step);
    }
    unreachable!("the walk ends")
}

#[tokio::test]
async fn a_whole_ledger_is_whole() {
    let world = World::new();
    for seq in 1..=20 {
        world.say("shop", "main", &format!("A-{}", seq % 7), count(&seq.to_string()), seq);
    }
    let json = world.get("/api/v1/verify").await.json();
    assert_eq!(
        (json["ok"].as_bool(), json["entries"].as_u64(), json["positions"].as_u64()),
        (Some(true), Some(20), Some(7))
    );
}

#[tokio::test]
async fn a_level_that_no_entry_explains_is_found() {
    let world = World::new();
    world.say("shop", "main", "A-1", count("5"), 1);
    world.say("shop", "main", "A-2", count("5"), 2);
    {
        let mut state = world.state.write().expect("not poisoned");
        let key = PositionKey { warehouse: 0, sku: "A-1".into() };
        let mut position = state.position(&key).expect("reads").expect("is there");
        position.effective = Some((0, Value::Tracked(Quantity::ZERO)));
        state.put_position(&key, &position);
    }
    let json = world.get("/api/v1/verify").await.json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"], serde_json::json!(["the level of A-1 in main is not what its audit entries say"]));
}

#[tokio::test]
async fn a_broken_chain_and_a_missing_level_are_found() {
    let world = World::new();
    world.say("shop", "main", "A-1", count("5"), 1);
    world
        .state
        .write()
        .expect("not poisoned")
        .put_position(&PositionKey { warehouse: 0, sku: "A-1".into() }, &Position::default());
    assert_eq!(verify(&world, |_| {}).problems, ["A-1 in main has audit entries and no level"]);
    world.state.write().expect("not poisoned").meta.link = [7; 32];
    assert_eq!(verify(&world, |_| {}).problems.len(), 2);
    world.say("shop", "main", "A-2", count("5"), 2);
    assert_eq!(verify(&world, |_| {}).problems, ["the chain breaks at audit entry 2"]);
}

#[tokio::test]
async fn a_gateway_at_work_verifies_as_whole() {
    let world = World::new();
    for seq in 1..=2500 {
        world.say("shop", "main", &format!("M-{seq}"), count("1"), seq);
    }
    // while the walk goes on, known levels move and new ones appear in front of it and behind it
    let verified = verify(&world, |step| {
        if step < 6 {
            let seq = 3000 + u64::from(step) * 10;
            world.say("shop", "main", "M-1", count(&seq.to_string()), seq);
            world.say("shop", "main", "M-2499", count(&seq.to_string()), seq + 1);
            world.say("shop", "main", &format!("A-{step}"), count("3"), seq + 2);
            world.say("shop", "other", &format!("Z-{step}"), count("3"), seq + 3);
        }
    });
    assert_eq!((verified.problems, verified.positions), (Vec::new(), 2512));
}

#[tokio::test]
async fn only_one_walk_at_a_time() {
    let world = World::new();
    let walk = world.api.shared.begin_walk().expect("nobody walks");
    assert_eq!(world.get("/api/v1/verify").await.status, 429);
    drop(walk);
    assert_eq!(world.get("/api/v1/verify").await.status, 200);
}
