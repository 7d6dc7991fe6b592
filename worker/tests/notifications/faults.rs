//! Workers that die, stop or are many; a destination that is away.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::common::Fleet;
use crate::receiver::{Receiver, Request, Says};

/// The receiver has it, and the worker dies before it can note that.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_sending_is_followed_by_one_that_sends_the_same() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::saying(vec![Says::Hold(Arc::new(Notify::new()))]).await;
    let first = fleet.telling("w1", &receiver).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    fleet
        .until(async || (receiver.requests().len() == 1).then_some(()))
        .await;
    first.kill();
    let claimed = "SELECT count(*) FROM chat.notifications WHERE claim_token IS NOT NULL AND next_try_at > now()";
    assert_eq!(fleet.read(claimed).await, "1");
    // Its claim runs out.
    fleet
        .force("UPDATE chat.notifications SET next_try_at = now()")
        .await;
    let _second = fleet.telling("w2", &receiver).await;
    fleet.all_told().await;
    let requests = receiver.requests();
    let told: HashSet<_> = requests
        .iter()
        .map(|request| (request.id(), &request.body))
        .collect();
    assert_eq!((requests.len(), told.len()), (2, 1));
}

/// What it cannot finish it gives back, and does not wait for it for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_gives_back_what_is_on_its_way() {
    // A machine that is too busy for the last word in time leaves it to the claim's end, once perhaps.
    for _ in 0..5 {
        let fleet = Fleet::new().await;
        let receiver = Receiver::saying(vec![Says::Hold(Arc::new(Notify::new()))]).await;
        let worker = fleet.telling("w1", &receiver).await;
        let conversation = fleet.conversation().await;
        fleet.replied(conversation, "hello").await;
        fleet
            .until(async || (receiver.requests().len() == 1).then_some(()))
            .await;
        worker.stop();
        worker.ended().await;
        let given_back = "SELECT claim_token IS NULL AND next_try_at <= now() AND attempts = 0 FROM chat.notifications";
        if fleet.read(given_back).await == "true" {
            let _second = fleet.telling("w2", &receiver).await;
            return fleet.all_told().await;
        }
    }
    panic!("it was never given back");
}

/// What ends while a worker stops is settled before it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_while_a_worker_stops_is_told_once_or_alike() {
    let fleet = Fleet::new().await;
    let gate = Arc::new(Notify::new());
    let receiver = Receiver::saying(vec![Says::Hold(Arc::clone(&gate))]).await;
    let worker = fleet.telling("w1", &receiver).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    fleet
        .until(async || (receiver.requests().len() == 1).then_some(()))
        .await;
    gate.notify_one();
    worker.stop();
    worker.ended().await;
    // On a machine that was too busy it is told again, at worst when the claim runs out.
    fleet
        .force("UPDATE chat.notifications SET next_try_at = now()")
        .await;
    let _second = fleet.telling("w2", &receiver).await;
    fleet.all_told().await;
    let ids: HashSet<_> = receiver.requests().iter().map(Request::id).collect();
    assert_eq!(ids.len(), 1);
}

/// Many conversations, two workers, a receiver that fails now and then.
#[tokio::test(flavor = "multi_thread")]
async fn two_workers_tell_everything_in_order_and_nothing_at_the_same_time() {
    let fleet = Fleet::new().await;
    let says = (0..30).map(|number| match number % 3 {
        0 => Says::status("503 Service Unavailable"),
        1 => Says::HangUp,
        _ => Says::status("200 OK"),
    });
    let receiver = Receiver::saying(says.collect()).await;
    let _workers = [
        fleet.telling("w1", &receiver).await,
        fleet.telling("w2", &receiver).await,
    ];
    let mut sent: HashMap<Uuid, Vec<String>> = HashMap::new();
    for _ in 0..6 {
        let conversation = fleet.conversation().await;
        for number in 0..4 {
            let generation = fleet.send(conversation, &number.to_string()).await.id;
            sent.entry(conversation)
                .or_default()
                .push(generation.to_string());
        }
    }
    let ended =
        "SELECT count(*) FROM chat.generations WHERE kind <> 'title' AND status = 'completed'";
    fleet.becomes(ended, "24").await;
    fleet.all_told().await;
    let mut heard: HashMap<Uuid, Vec<String>> = HashMap::new();
    for request in receiver.requests() {
        let json = request.json();
        let conversation = json["data"]["conversation_id"].as_str().unwrap();
        let of_conversation = heard.entry(conversation.parse().unwrap()).or_default();
        of_conversation.push(request.generation());
    }
    // Told again or not, no earlier one comes after a later one.
    heard.values_mut().for_each(Vec::dedup);
    assert_eq!(heard, sent);
    assert_eq!(receiver.doubled(), Vec::<String>::new());
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_was_away_gets_everything() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    receiver.always(Some(Says::HangUp));
    let _worker = fleet.telling("w1", &receiver).await;
    let mut generations = HashSet::new();
    for _ in 0..8 {
        let conversation = fleet.conversation().await;
        generations.insert(fleet.replied(conversation, "hello").await.to_string());
    }
    let tripped = "SELECT failures >= 5 FROM chat.notification_destinations WHERE name = 'http'";
    fleet.becomes(tripped, "true").await;
    // While it is left alone nothing is sent, however much is due.
    fleet
        .force("UPDATE chat.notification_destinations SET paused_until = now() + interval '1 hour'")
        .await;
    fleet
        .force("UPDATE chat.notifications SET next_try_at = now() WHERE claim_token IS NULL")
        .await;
    let idle = "SELECT count(*) FROM chat.notifications WHERE claim_token IS NOT NULL";
    fleet
        .until(async || (fleet.read(idle).await == "0").then_some(()))
        .await;
    // A straggler of the moment before may have been the last to be heard.
    receiver.always(None);
    let heard = receiver.requests().len();
    let held = fleet.conversation().await;
    generations.insert(fleet.replied(held, "while it is away").await.to_string());
    assert_eq!(receiver.requests().len(), heard);
    fleet.all_told().await;
    let told: HashSet<String> = receiver.requests()[heard..]
        .iter()
        .map(Request::generation)
        .collect();
    assert_eq!(told, generations);
    let state = "SELECT failures FROM chat.notification_destinations WHERE name = 'http'";
    assert_eq!(fleet.read(state).await, "0");
}

/// Who is to be told is what the last worker that started says.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_tells_nobody_writes_nothing() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    let worker = fleet.telling("w1", &receiver).await;
    worker.stop();
    worker.ended().await;
    let _silent = fleet.worker("w2");
    fleet
        .becomes(
            "SELECT tgenabled FROM pg_trigger WHERE tgname = 'notify_ended'",
            "D",
        )
        .await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    assert_eq!(
        fleet.read("SELECT count(*) FROM chat.notifications").await,
        "0"
    );
    assert!(receiver.requests().is_empty());
}
