//! What operators see and do, at the level of the store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where it stands"
)]

#[path = "../common/mod.rs"]
mod common;

mod dead_letters;
mod fleet;
mod queues;

use shared::store::ServingRole;
use shared::store::audit::Actor;
use shared::store::{Db, OperatorTx};

use crate::common::World;

fn actor() -> Actor {
    Actor {
        name: "an operator".to_owned(),
        request_id: Some("request-1".to_owned()),
    }
}

fn view(world: &World) -> Db {
    world.env.db(ServingRole::Operator)
}

async fn look(view: &Db) -> OperatorTx {
    view.operator().await.unwrap()
}
