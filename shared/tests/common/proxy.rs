//! What stands between a process and its servers: a place to listen that answers nothing, and a
//! pooler that ignores start-up options.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Where in a URL its host and port are.
fn host_and_port(url: &str) -> std::ops::Range<usize> {
    let start = url.find("://").unwrap() + 3;
    let end = url[start..]
        .find(['/', '?'])
        .map_or(url.len(), |length| start + length);
    let start = url[start..end]
        .rfind('@')
        .map_or(start, |at| start + at + 1);
    start..end
}

/// The same URL, but the server is at another address.
pub(crate) fn url_at(url: &str, address: SocketAddr) -> String {
    let mut url = url.to_owned();
    url.replace_range(host_and_port(&url), &address.to_string());
    url
}

/// Where the server of a URL is.
pub(crate) fn server_of(url: &str) -> String {
    url[host_and_port(url)].to_owned()
}

/// Something that listens on a port of its own until it is dropped.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    _connections: JoinSet<()>,
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that takes connections and never says a word: a machine that hangs.
pub(crate) async fn silent() -> Listening {
    let (listener, address) = listen().await;
    let mut connections = JoinSet::new();
    connections.spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    Listening {
        address,
        _connections: connections,
    }
}

/// A port on which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    listen().await.1
}

/// Stands before Postgres as a pooler in transaction mode does: the start-up packet's options never
/// reach the server.
pub(crate) async fn pooler(server: String) -> Listening {
    let (listener, address) = listen().await;
    let mut connections = JoinSet::new();
    connections.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let server = server.clone();
            clients.spawn(async move {
                // A client that goes away ends its connection, nothing else.
                let _ = without_options(client, server).await;
            });
        }
    });
    Listening {
        address,
        _connections: connections,
    }
}

const SSL_REQUEST: u32 = 80_877_103;

async fn without_options(mut client: TcpStream, server: String) -> std::io::Result<()> {
    let (protocol, body) = loop {
        let length = client.read_u32().await?;
        let protocol = client.read_u32().await?;
        let mut body = vec![0; length.saturating_sub(8) as usize];
        client.read_exact(&mut body).await?;
        if protocol != SSL_REQUEST {
            break (protocol, body);
        }
        client.write_all(b"N").await?;
    };
    let texts: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
    let mut kept = Vec::new();
    for pair in texts.chunks_exact(2).filter(|pair| !pair[0].is_empty()) {
        if pair[0] != b"options" {
            kept.extend([pair[0], b"\0", pair[1], b"\0"].concat());
        }
    }
    kept.push(0);
    let mut server = TcpStream::connect(server).await?;
    server
        .write_u32(u32::try_from(kept.len() + 8).unwrap())
        .await?;
    server.write_u32(protocol).await?;
    server.write_all(&kept).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Passes everything on to `server`; when told to, it loses the next answer and breaks the connection.
pub(crate) async fn losing(server: String, lose_answer: Arc<AtomicBool>) -> Listening {
    let (listener, address) = listen().await;
    let mut connections = JoinSet::new();
    connections.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (server, lose_answer) = (server.clone(), Arc::clone(&lose_answer));
            clients.spawn(async move {
                let _ = until_lost(client, server, &lose_answer).await;
            });
        }
    });
    Listening {
        address,
        _connections: connections,
    }
}

async fn until_lost(
    mut client: TcpStream,
    server: String,
    lose_answer: &AtomicBool,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read? {
                0 => return Ok(()),
                count => server.write_all(&asked[..count]).await?,
            },
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                _ if lose_answer.swap(false, Ordering::SeqCst) => return Ok(()),
                count => client.write_all(&answered[..count]).await?,
            },
        }
    }
}

/// Passes everything on from `address` to `server`.
pub(crate) async fn forward(address: SocketAddr, server: String) -> Listening {
    let listener = TcpListener::bind(address).await.unwrap();
    let mut connections = JoinSet::new();
    connections.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            clients.spawn(async move {
                if let Ok(mut server) = TcpStream::connect(server).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    Listening {
        address,
        _connections: connections,
    }
}

/// Passes everything on to `server`; what the client says waits while `held`.
pub(crate) async fn holding(server: String, held: tokio::sync::watch::Receiver<bool>) -> Listening {
    let (listener, address) = listen().await;
    let mut connections = JoinSet::new();
    connections.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (server, held) = (server.clone(), held.clone());
            clients.spawn(async move {
                let _ = through(client, server, held).await;
            });
        }
    });
    Listening {
        address,
        _connections: connections,
    }
}

async fn through(
    mut client: TcpStream,
    server: String,
    mut held: tokio::sync::watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let there = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from_client.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            // Whoever holds it has gone: nothing is held any more.
            let _ = held.wait_for(|held| !held).await;
            to_server.write_all(&buffer[..count]).await?;
        }
    };
    tokio::select! {
        done = there => done,
        done = tokio::io::copy(&mut from_server, &mut to_client) => done.map(drop),
    }
}
