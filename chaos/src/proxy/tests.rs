use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// Longer than anything takes that is on its way; only for seeing that nothing comes.
const NOTHING: Duration = Duration::from_millis(150);

/// A client and its server, and the link between them.
struct Pair {
    link: Link,
    listener: TcpListener,
    tally: Arc<Tally>,
}

impl Pair {
    async fn new(protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tally = Arc::new(Tally::default());
        let server = listener.local_addr().unwrap();
        let link = Link::open("link".to_owned(), server, protocol, 1, Arc::clone(&tally));
        let link = link.await.unwrap();
        Self {
            link,
            listener,
            tally,
        }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.link.address()).await.unwrap();
        let (server, _) = self.listener.accept().await.unwrap();
        (client, server)
    }

    /// Connected, and past Postgres's start-up packet, with a transaction that writes.
    async fn writing(&self) -> (TcpStream, TcpStream) {
        let (mut client, mut server) = self.connect().await;
        let mut said = 8_u32.to_be_bytes().to_vec();
        said.extend(196_608_u32.to_be_bytes());
        said.extend(query("BEGIN"));
        said.extend(query("INSERT INTO chat.generations 'reply' 'user'"));
        client.write_all(&said).await.unwrap();
        let mut heard = vec![0; said.len()];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, said);
        (client, server)
    }
}

fn query(sql: &str) -> Vec<u8> {
    let mut message = vec![b'Q'];
    message.extend(u32::try_from(sql.len() + 5).unwrap().to_be_bytes());
    message.extend(sql.as_bytes());
    message.push(0);
    message
}

async fn hears_nothing(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(NOTHING, stream.read(&mut byte)).await;
    assert!(read.is_err(), "{read:?}");
}

async fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, expected);
}

/// Whether the connection was reset, after whatever was still under way.
async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.is_err()
}

#[tokio::test]
async fn everything_arrives_in_both_directions_also_late() {
    let pair = Pair::new(Protocol::Opaque).await;
    for delay in [0, 20] {
        pair.link.set(Condition {
            delay: Duration::from_millis(delay),
            ..Condition::default()
        });
        let (mut client, mut server) = pair.connect().await;
        let said: Vec<u8> = (0..300_000_u32)
            .map(|number| (number % 251) as u8)
            .collect();
        let copy = said.clone();
        let echo = crate::task::spawn(async move {
            let mut heard = vec![0; 300_000];
            server.read_exact(&mut heard).await.unwrap();
            server.write_all(&heard).await.unwrap();
            assert_eq!(heard, copy);
        });
        client.write_all(&said).await.unwrap();
        let mut back = Vec::new();
        // The server's end is the client's end, after the last byte.
        client.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, said);
        echo.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_is_away_refuses() {
    let pair = Pair::new(Protocol::Opaque).await;
    let Pair { link, listener, .. } = pair;
    drop(listener);
    let mut client = TcpStream::connect(link.address()).await.unwrap();
    assert!(is_reset(&mut client).await);
}

#[tokio::test]
async fn a_link_is_cut_after_its_bytes_and_on_demand() {
    let pair = Pair::new(Protocol::Opaque).await;
    pair.link.set(Condition {
        cut_after: Some(5),
        ..Condition::default()
    });
    let (mut client, mut server) = pair.connect().await;
    server.write_all(b"123").await.unwrap();
    hears(&mut client, b"123").await;
    server.write_all(b"45678").await.unwrap();
    hears(&mut client, b"45").await;
    assert!(is_reset(&mut client).await);
    assert_eq!(pair.tally.cut.load(Ordering::Relaxed), 1);
    pair.link.heal();
    let (mut client, mut server) = pair.connect().await;
    server.write_all(b"12345678").await.unwrap();
    hears(&mut client, b"12345678").await;
    pair.link.cut();
    assert!(is_reset(&mut client).await);
    assert!(is_reset(&mut server).await);
}

#[tokio::test]
async fn a_deaf_link_holds_everything_until_it_is_healed() {
    let pair = Pair::new(Protocol::Opaque).await;
    let (mut client, mut server) = pair.connect().await;
    pair.link.set(Condition {
        deaf: true,
        ..Condition::default()
    });
    client.write_all(b"hello").await.unwrap();
    hears_nothing(&mut server).await;
    pair.link.heal();
    hears(&mut server, b"hello").await;
}

#[tokio::test]
async fn a_trap_holds_the_commit_itself() {
    let pair = Pair::new(Protocol::Postgres).await;
    let (mut client, mut server) = pair.writing().await;
    let (trap, mut sprung) = Trap::new(Point::Commit(Writes::ACCEPT), Hold::Request);
    pair.link.arm(trap);
    client.write_all(&query("COMMIT")).await.unwrap();
    assert_eq!(sprung.recv().await.as_deref(), Some("link"));
    hears_nothing(&mut server).await;
    pair.link.heal();
    hears(&mut server, &query("COMMIT")).await;
}

#[tokio::test]
async fn a_trap_holds_the_answer_to_a_commit() {
    let pair = Pair::new(Protocol::Postgres).await;
    let (mut client, mut server) = pair.writing().await;
    let (trap, mut sprung) = Trap::new(Point::Commit(Writes::ACCEPT), Hold::Answer);
    pair.link.arm(trap);
    client.write_all(&query("COMMIT")).await.unwrap();
    hears(&mut server, &query("COMMIT")).await;
    assert!(
        sprung.try_recv().is_err(),
        "not before the server has answered"
    );
    server.write_all(b"done").await.unwrap();
    assert_eq!(sprung.recv().await.as_deref(), Some("link"));
    hears_nothing(&mut client).await;
    pair.link.heal();
    hears(&mut client, b"done").await;
}

#[tokio::test]
async fn a_trap_on_two_links_springs_once_and_only_at_its_moment() {
    let pairs = [
        Pair::new(Protocol::Postgres).await,
        Pair::new(Protocol::Postgres).await,
    ];
    let (trap, mut sprung) = Trap::new(Point::Commit(Writes::ACCEPT), Hold::Request);
    let (other, mut never) = Trap::new(Point::Commit(Writes::FINISH), Hold::Request);
    let mut ends = Vec::new();
    for pair in &pairs {
        pair.link.arm(trap.clone());
        pair.link.arm(other.clone());
        ends.push(pair.writing().await);
    }
    for (client, _) in &mut ends {
        client.write_all(&query("COMMIT")).await.unwrap();
    }
    sprung.recv().await.unwrap();
    let [(_, first), (_, second)] = &mut ends[..] else {
        unreachable!("two pairs");
    };
    let (mut one, mut other) = ([0], [0]);
    let held = tokio::select! {
        _ = first.read_exact(&mut one) => second,
        _ = second.read_exact(&mut other) => first,
    };
    hears_nothing(held).await;
    assert!(sprung.try_recv().is_err());
    assert!(never.try_recv().is_err());
}

#[tokio::test]
async fn an_ambiguous_commit_never_gets_its_answer() {
    let pair = Pair::new(Protocol::Postgres).await;
    for _ in 0..12 {
        pair.link.heal();
        let (mut client, mut server) = pair.writing().await;
        pair.link.set(Condition {
            ambiguous: 1.0,
            ..Condition::default()
        });
        client.write_all(&query("COMMIT")).await.unwrap();
        let answering = crate::task::spawn(async move {
            let mut heard = vec![0; query("COMMIT").len()];
            if server.read_exact(&mut heard).await.is_ok() {
                let _ = server.write_all(b"done").await;
            }
        });
        assert!(is_reset(&mut client).await);
        answering.await.unwrap();
    }
    assert_eq!(pair.tally.ambiguous(), 12);
    assert_eq!(pair.tally.by_kind()["accept"], 12);
    // Both kinds come up, whatever the seed: 2 of 2 to the 12 do not.
    assert!(pair.tally.commits_unknown.load(Ordering::Relaxed) > 0);
    assert!(pair.tally.commits_untold.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_posted_message_is_a_moment_too() {
    let pair = Pair::new(Protocol::Http).await;
    let (mut client, mut server) = pair.connect().await;
    let (trap, mut sprung) = Trap::new(Point::Post, Hold::Answer);
    pair.link.arm(trap);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    hears(&mut server, b"GET / HTTP/1.1\r\n\r\n").await;
    server.write_all(b"ok").await.unwrap();
    hears(&mut client, b"ok").await;
    let post = b"POST /api/chat/conversations/1/messages HTTP/1.1\r\n\r\n";
    client.write_all(post).await.unwrap();
    hears(&mut server, post).await;
    server.write_all(b"ok").await.unwrap();
    assert_eq!(sprung.recv().await.as_deref(), Some("link"));
    hears_nothing(&mut client).await;
}
