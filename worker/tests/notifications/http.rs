//! Told by HTTP.

use std::collections::HashSet;

use secrecy::SecretString;
use serde_json::json;
use shared::store::{conversations, generations};
use worker::outbound::SigningKeys;

use crate::SECRET;
use crate::common::Fleet;
use crate::receiver::{Receiver, Request, Says};

/// The signature that the request should have.
fn signature(request: &Request) -> String {
    let keys = SigningKeys::new(&[SecretString::from(SECRET)]).unwrap();
    let id = request.id().parse().unwrap();
    let timestamp = request.header("webhook-timestamp").unwrap();
    keys.sign(id, timestamp.parse().unwrap(), &request.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_told_signed_and_whole() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    // Written before any worker looks, so that the request's trace is known.
    fleet
        .env
        .execute("SELECT chat.switch_notifications('{http}')")
        .await;
    let conversation = fleet.conversation().await;
    let (sent, _) = fleet.commit(fleet.user, conversation, "hello").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    fleet
        .env
        .execute(&format!(
            "UPDATE chat.generations SET traceparent = '{trace}'"
        ))
        .await;
    let _worker = fleet.telling("w1", &receiver).await;
    let done = fleet.ended(sent.id).await;
    fleet.all_told().await;
    let requests = receiver.requests();
    let request = requests.first().unwrap();
    assert_eq!(request.line, "POST /notifications HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.header("x-service-key"),
        Some("the key of the service")
    );
    assert_eq!(request.header("x-request-id"), Some("request-1"));
    assert_eq!(request.header("traceparent"), Some(trace));
    assert_eq!(
        request.header("webhook-signature"),
        Some(signature(request).as_str())
    );
    let timestamp: i64 = request
        .header("webhook-timestamp")
        .unwrap()
        .parse()
        .unwrap();
    assert!((fleet.clock.now().unix_timestamp() - timestamp).abs() < 300);
    let reply = done.assistant_message.unwrap();
    let body = request.json();
    assert_eq!(
        body,
        json!({
            "id": request.id(),
            "type": "chat.generation.completed",
            "user_id": fleet.user,
            "occurred_at": shared::domain::timestamp::format(done.timings.finished_at.unwrap()),
            "data": {
                "conversation_id": conversation,
                "generation_id": sent.id,
                "kind": "reply",
                "status": "completed",
                "user_message_id": done.user_message_id,
                "assistant_message": {
                    "id": reply.id,
                    "content": reply.content,
                    "content_type": "text",
                    "created_at": shared::domain::timestamp::format(reply.created_at),
                },
                "usage": serde_json::to_value(done.usage.unwrap()).unwrap(),
            },
        })
    );
    let told: HashSet<_> = requests.iter().map(|request| &request.body).collect();
    assert_eq!(told.len(), 1, "every try has the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_and_a_cancellation_are_told_without_a_text() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    let _worker = fleet.telling("w1", &receiver).await;
    let conversation = fleet.conversation().await;
    let failed = fleet
        .send(conversation, "[[sim:moderation]] what of that?")
        .await;
    fleet.ended(failed.id).await;
    let held = fleet.send(conversation, "[[sim:hold=2]] go on").await;
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    generations::cancel(&mut tx, held.id, Some("so far"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    fleet.all_told().await;
    let requests = receiver.requests();
    let first = requests.first().unwrap().json();
    assert_eq!(first["type"], "chat.generation.failed");
    assert_eq!(first["data"]["error"]["code"], "content_refused");
    assert_eq!(first["data"].get("assistant_message"), None);
    let last = requests.last().unwrap();
    assert_eq!(last.json()["type"], "chat.generation.cancelled");
    assert_eq!(last.json()["data"]["status"], "cancelled");
    assert!(!String::from_utf8_lossy(&last.body).contains("so far"));
}

/// The receiver fails in every way it can; what it hears is one conversation in order, each
/// notification with the same id and bytes on every try.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_again_in_order() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::saying(vec![
        Says::status("500 Internal Server Error"),
        Says::HangUp,
        Says::Status("429 Too Many Requests", "retry-after: 1\r\n".to_owned()),
        Says::status("404 Not Found"),
        Says::status("302 Found"),
    ])
    .await;
    let _worker = fleet.telling("w1", &receiver).await;
    let conversation = fleet.conversation().await;
    let mut generations = Vec::new();
    for number in 0..3 {
        let generation = fleet.replied(conversation, &number.to_string()).await;
        generations.push(generation.to_string());
    }
    fleet.all_told().await;
    let requests = receiver.requests();
    let mut heard: Vec<String> = requests.iter().map(Request::generation).collect();
    assert_eq!(heard[..6], vec![generations[0].clone(); 6], "{heard:?}");
    heard.dedup();
    assert_eq!(heard, generations);
    let of_first: HashSet<_> = requests[..6]
        .iter()
        .map(|request| (request.id(), &request.body))
        .collect();
    assert_eq!(of_first.len(), 1);
    for request in &requests {
        let given = request.header("webhook-signature").unwrap();
        assert_eq!(given, signature(request));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_not_wanted_any_more_is_dead_and_the_next_goes() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::saying(vec![Says::status("410 Gone")]).await;
    let _worker = fleet.telling("w1", &receiver).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "one").await;
    let second = fleet.replied(conversation, "two").await;
    fleet
        .becomes(
            "SELECT string_agg(concat_ws(' ', attempts, dead_reason, last_error), ', ') FROM chat.notifications",
            "1 gone status 410",
        )
        .await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].generation(), second.to_string());
}

/// The status decides: nobody waits for the rest, and nothing of it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_or_does_not_end_is_no_failure() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::saying(vec![Says::CutBody, Says::EndlessBody, Says::SilentBody]).await;
    let _worker = fleet.telling("w1", &receiver).await;
    let conversation = fleet.conversation().await;
    for number in 0..3 {
        fleet.replied(conversation, &number.to_string()).await;
    }
    fleet.all_told().await;
    let ids: HashSet<_> = receiver.requests().iter().map(Request::id).collect();
    assert_eq!((receiver.requests().len(), ids.len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let fleet = Fleet::new().await;
    let elsewhere = Receiver::new().await;
    let location = format!("location: {}/notifications\r\n", elsewhere.url());
    let receiver = Receiver::saying(vec![Says::Status("307 Temporary Redirect", location)]).await;
    let _worker = fleet.telling("w1", &receiver).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    fleet.all_told().await;
    assert_eq!(receiver.requests().len(), 2);
    assert!(elsewhere.requests().is_empty());
}

/// A name that leads inside is refused when it is looked up.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_a_private_address_is_not_connected_to() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    let url = format!("http://localhost:{}", receiver.port());
    let settings = [
        ("NOTIFICATION_SERVICE_URL", url.as_str()),
        ("NOTIFICATION_ALLOW_PRIVATE", "false"),
    ];
    let _worker = fleet.telling_with("w1", &receiver, &settings).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    fleet
        .becomes(
            "SELECT last_error LIKE '%private or reserved%' FROM chat.notifications",
            "true",
        )
        .await;
    assert!(receiver.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_what_was_deleted() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    receiver.always(Some(Says::status("500 Internal Server Error")));
    let _worker = fleet.telling("w1", &receiver).await;
    let (deleted, kept) = (fleet.conversation().await, fleet.conversation().await);
    let gone = fleet.replied(deleted, "forget me").await;
    fleet
        .becomes("SELECT attempts > 0 FROM chat.notifications", "true")
        .await;
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    conversations::delete(&mut tx, deleted).await.unwrap();
    tx.commit().await.unwrap();
    let of_gone = format!("SELECT count(*) FROM chat.notifications WHERE generation_id = '{gone}'");
    fleet.becomes(&of_gone, "0").await;
    let before = receiver.requests().len();
    receiver.always(None);
    fleet.replied(kept, "hello").await;
    fleet.all_told().await;
    let after = receiver.requests();
    assert!(
        after[before..]
            .iter()
            .all(|request| request.generation() != gone.to_string())
    );
}
