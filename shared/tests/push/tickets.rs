//! Tickets let a browser's WebSocket in once.

use redis::cmd;
use shared::tickets::{LIFETIME, Ticket, issue, redeem};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::common::World;

fn ticket() -> Ticket {
    Ticket {
        user_id: Uuid::new_v4(),
        expires_at: OffsetDateTime::from_unix_timestamp(1_900_000_000).unwrap(),
    }
}

async fn keys(world: &World) -> Vec<String> {
    let pattern = world.redis.key("ticket:*");
    world.redis.command(cmd("KEYS").arg(pattern)).await.unwrap()
}

#[tokio::test]
async fn a_ticket_is_good_once() {
    let world = World::new().await;
    let (first, second) = (ticket(), ticket());
    let secret = issue(&world.redis, &first).await.unwrap();
    let other = issue(&world.redis, &second).await.unwrap();
    assert_ne!(secret, other);
    assert!(secret.len() >= 32);
    for wrong in ["", "nothing", &secret[1..], &secret.to_uppercase()[..]] {
        if wrong != secret {
            assert_eq!(redeem(&world.redis, wrong).await.unwrap(), None, "{wrong}");
        }
    }
    assert_eq!(redeem(&world.redis, &secret).await.unwrap(), Some(first));
    assert_eq!(redeem(&world.redis, &secret).await.unwrap(), None);
    assert_eq!(redeem(&world.redis, &other).await.unwrap(), Some(second));
}

#[tokio::test]
async fn of_many_who_redeem_a_ticket_at_once_one_gets_in() {
    let world = World::new().await;
    let secret = issue(&world.redis, &ticket()).await.unwrap();
    let replicas = [world.env.redis(), world.env.redis()];
    let redeemed = (0..10).map(|number| redeem(&replicas[number % 2], &secret));
    let redeemed = futures::future::join_all(redeemed).await;
    let in_now = redeemed
        .into_iter()
        .filter(|ticket| ticket.as_ref().unwrap().is_some());
    assert_eq!(in_now.count(), 1);
}

#[tokio::test]
async fn a_ticket_expires_and_its_secret_is_not_kept() {
    let world = World::new().await;
    let secret = issue(&world.redis, &ticket()).await.unwrap();
    let keys = keys(&world).await;
    assert_eq!(keys.len(), 1);
    assert!(
        !keys[0].contains(&secret),
        "a dump of Redis must not open a socket"
    );
    let left: u64 = world
        .redis
        .command(cmd("PTTL").arg(&keys[0]))
        .await
        .unwrap();
    assert!(
        left > 0 && u128::from(left) <= LIFETIME.as_millis(),
        "{left} ms"
    );
    // Its time is up.
    world
        .redis
        .command::<i64>(cmd("PEXPIREAT").arg(&keys[0]).arg(1))
        .await
        .unwrap();
    assert_eq!(redeem(&world.redis, &secret).await.unwrap(), None);
}
