use std::net::Ipv4Addr;

use bytes::BytesMut;
use serde_json::{Value, json};

use super::*;

const ID: &str = "0193a2b4-5c6d-7e8f-9a0b-1c2d3e4f5a6b";

fn body() -> Value {
    let id = Uuid::from_u128(1);
    json!({"id": ID, "type": "chat.generation.failed", "user_id": id, "data": {
        "generation_id": Uuid::from_u128(2), "conversation_id": id, "status": "failed", "kind": "reply",
        "error": {"code": "expired"},
    }})
}

/// A request signed at this time, with one line of it replaced.
fn request(at: u64, replace: (&str, &str)) -> Vec<u8> {
    let body = body().to_string();
    let signature = telling::signature(ID, &at.to_string(), body.as_bytes());
    let head = format!(
        "POST /notifications HTTP/1.1\r\nwebhook-id: {ID}\r\nWebhook-Timestamp: {at}\r\n\
         webhook-signature: v1,other {signature}\r\nx-service-key: {SERVICE_KEY}\r\n\
         content-type: application/json\r\nx-request-id: r\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    head.replace(replace.0, replace.1).into_bytes()
}

fn now() -> u64 {
    loadtest::clock::unix_micros() / 1_000_000
}

fn read_from(bytes: &[u8]) -> Result<Telling, String> {
    let mut bytes = BytesMut::from(bytes);
    read(&Incoming::take(&mut bytes).unwrap())
}

#[test]
fn what_is_told_by_the_rules_is_read() {
    let telling = read_from(&request(now(), ("", ""))).unwrap();
    assert_eq!(telling.id.to_string(), ID);
    assert_eq!(telling.generation, Uuid::from_u128(2));
    assert_eq!(telling.error.as_deref(), Some("expired"));
    assert_eq!(telling.request_id.as_deref(), Some("r"));
}

#[test]
fn what_is_forged_old_or_somewhere_else_is_a_fault() {
    for replace in [
        ("expired", "expirad"),
        (SERVICE_KEY, "another"),
        ("v1,", "v2,"),
        ("/notifications", "/"),
        ("application/json", "text/plain"),
        (&ID[..8], "0193a2b5"),
    ] {
        assert!(read_from(&request(now(), replace)).is_err(), "{replace:?}");
    }
    assert!(read_from(&request(now() - 301, ("", ""))).is_err());
}

/// Made with the reference library, `standardwebhooks` 1.1.0 of PyPI: `Webhook(SECRET).sign(id, time, body)`.
#[test]
fn the_signature_is_that_of_the_specification() {
    assert_eq!(
        telling::signature(ID, "1614265330", br#"{"test": 2432232314}"#),
        "v1,U82aHUVl3oDi4PYRzjSi4aU/ggRbT2MRNlIxnywjdNI="
    );
}

#[test]
fn two_requests_of_one_connection_are_read_in_pieces() {
    let mut sent = request(now(), ("", ""));
    sent.extend(request(now(), ("x-request-id: r", "x-request-id: s")));
    let mut bytes = BytesMut::new();
    let mut read = Vec::new();
    for byte in sent {
        bytes.extend([byte]);
        read.extend(Incoming::take(&mut bytes));
    }
    let ids: Vec<_> = read.iter().map(|one| one.header("X-Request-Id")).collect();
    assert_eq!(ids, [Some("r"), Some("s")]);
}

#[test]
fn other_bytes_under_the_same_id_are_a_fault() {
    let incoming =
        |replace| Incoming::take(&mut BytesMut::from(&request(now(), replace)[..])).unwrap();
    let mut told = Told::default();
    let first = incoming(("", ""));
    told.note(&first, Said::HungUp);
    told.note(&first, Said::Fine);
    assert_eq!(told.faults, Vec::<String>::new());
    told.bodies.insert(ID.parse().unwrap(), Bytes::new());
    told.note(&first, Said::Fine);
    assert_eq!(told.faults.len(), 1);
    assert_eq!(told.tellings.len(), 3);
}

#[tokio::test]
async fn it_is_down_and_comes_back_and_answers_by_its_mood() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut receiver = Receiver::start(address, 1).await.unwrap();
    let client = crate::load::http_client().unwrap();
    let tell = async || {
        let bytes = request(now(), ("", ""));
        let split = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
        let mut request = client.post(format!("http://{address}/notifications"));
        for line in head
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with("content-length"))
        {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let sent = request.body(bytes[split + 4..].to_vec()).send().await;
        sent.ok().map(|answer| answer.status().as_u16())
    };
    assert_eq!(tell().await, Some(204));
    receiver.set(Mood::Ambiguous);
    assert_eq!(tell().await, None);
    receiver.go_down().await;
    assert_eq!(tell().await, None);
    assert_eq!(receiver.count(), 2);
    receiver.set(Mood::Good);
    receiver.come_back().await.unwrap();
    assert_eq!(tell().await, Some(204));
    let said: Vec<Said> = receiver
        .told()
        .tellings
        .iter()
        .map(|one| one.said)
        .collect();
    assert_eq!(said, [Said::Fine, Said::Half, Said::Fine]);
}
