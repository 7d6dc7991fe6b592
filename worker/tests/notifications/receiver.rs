//! The notification service, played by a socket that says whatever a test tells it to.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What it says to one request.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// A status, more headers, and no body.
    Status(&'static str, String),
    /// Nothing, until it is let go; then that all is well.
    Hold(Arc<Notify>),
    /// Nothing; it hangs up.
    HangUp,
    /// That all is well, and then it hangs up in the middle of the body.
    CutBody,
    /// That all is well, with a body that never ends.
    EndlessBody,
    /// That all is well, and then the body does not come.
    SilentBody,
}

impl Says {
    pub(crate) fn status(status: &'static str) -> Self {
        Self::Status(status, String::new())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn id(&self) -> String {
        self.header("webhook-id").unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn generation(&self) -> String {
        let json = self.json();
        json["data"]["generation_id"].as_str().unwrap().to_owned()
    }
}

#[derive(Debug, Default)]
struct Notes {
    requests: Vec<Request>,
    says: VecDeque<Says>,
    always: Option<Says>,
    /// Ids that are being received right now.
    here: HashSet<String>,
    /// Ids that came while they were being received.
    doubled: Vec<String>,
}

/// A place that is told. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    notes: Arc<Mutex<Notes>>,
    _connections: JoinSet<()>,
}

impl Receiver {
    /// One to which all is well.
    pub(crate) async fn new() -> Self {
        Self::saying(Vec::new()).await
    }

    /// One that says these things first.
    pub(crate) async fn saying(says: Vec<Says>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let notes = Arc::new(Mutex::new(Notes {
            says: says.into(),
            ..Notes::default()
        }));
        let shared = Arc::clone(&notes);
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let notes = Arc::clone(&shared);
                clients.spawn(async move {
                    let _ = serve(client, &notes).await;
                });
            }
        });
        Self {
            address,
            notes,
            _connections: connections,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it says from now on where nothing else is planned.
    pub(crate) fn always(&self, says: Option<Says>) {
        self.notes.lock().unwrap().always = says;
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.notes.lock().unwrap().requests.clone()
    }

    /// Ids that came a second time while the first was still on its way.
    pub(crate) fn doubled(&self) -> Vec<String> {
        self.notes.lock().unwrap().doubled.clone()
    }
}

async fn serve(mut client: TcpStream, notes: &Mutex<Notes>) -> std::io::Result<()> {
    let Some(request) = read(&mut client).await? else {
        return Ok(());
    };
    let id = request.header("webhook-id").unwrap_or_default().to_owned();
    let says = {
        let mut notes = notes.lock().unwrap();
        if !notes.here.insert(id.clone()) {
            notes.doubled.push(id.clone());
        }
        notes.requests.push(request);
        let planned = notes.says.pop_front();
        planned.or_else(|| notes.always.clone())
    };
    let done = say(&mut client, says, || {
        notes.lock().unwrap().here.remove(&id);
    });
    let done = done.await;
    notes.lock().unwrap().here.remove(&id);
    done
}

/// `done` is called before the last word: whoever hears it may come again at once.
async fn say(client: &mut TcpStream, says: Option<Says>, done: impl Fn()) -> std::io::Result<()> {
    let fine = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
    match says {
        None => {
            done();
            client.write_all(fine).await?;
        }
        Some(Says::Status(status, headers)) => {
            let text = format!(
                "HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
            );
            done();
            client.write_all(text.as_bytes()).await?;
        }
        Some(Says::Hold(gate)) => {
            let mut end = [0];
            tokio::select! {
                () = gate.notified() => {
                    done();
                    client.write_all(fine).await?;
                }
                // The other side hung up.
                _ = client.read(&mut end) => {}
            }
        }
        Some(Says::HangUp) => done(),
        Some(Says::CutBody) => {
            done();
            let text = format!("{ok}content-length: 100\r\n\r\nonly so far");
            client.write_all(text.as_bytes()).await?;
        }
        Some(Says::EndlessBody) => {
            done();
            let text = format!("{ok}content-length: 1000000000000\r\n\r\n");
            client.write_all(text.as_bytes()).await?;
            // Until the other side has had enough.
            while client.write_all(&[b'x'; 65_536]).await.is_ok() {}
        }
        Some(Says::SilentBody) => {
            done();
            let text = format!("{ok}content-length: 100\r\n\r\n");
            client.write_all(text.as_bytes()).await?;
            let mut end = [0];
            let _ = client.read(&mut end).await;
        }
    }
    client.shutdown().await
}

async fn read(client: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let (line, head) = head.split_once("\r\n").unwrap();
            let length: usize = head
                .lines()
                .find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    let is_length = name.eq_ignore_ascii_case("content-length");
                    is_length.then(|| value.parse().unwrap())
                })
                .unwrap_or(0);
            let start = line.len() + head.len() + 6;
            if bytes.len() >= start + length {
                return Ok(Some(Request {
                    line: line.to_owned(),
                    head: head.to_owned(),
                    body: bytes[start..].to_vec(),
                }));
            }
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
