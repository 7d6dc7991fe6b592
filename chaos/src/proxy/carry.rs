//! Carrying one connection.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::postgres::Scanner;
use super::{Hold, Mark, Point, Protocol, Shared, Trap, http};

/// How long the server may take to accept.
const CONNECT: Duration = Duration::from_secs(5);
/// Pieces under way in one direction; a reader waits beyond that.
const UNDER_WAY: usize = 64;
const PIECE: usize = 16 * 1024;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As the one side ended it.
    Closed,
    /// By a reset of both sides.
    Reset,
}

/// What the two directions of a connection tell each other.
#[derive(Default)]
struct Wire {
    /// The trap that holds the answers, until it has told so.
    holding: Mutex<Option<Trap>>,
    hold_answers: AtomicBool,
    /// The next answer shows that the commit took place, and is not passed on.
    cut_at_answer: AtomicBool,
    answered: AtomicU64,
}

impl Wire {
    /// Puts a trap in the place of the one that is there.
    fn hold(&self, trap: Option<Trap>) -> Option<Trap> {
        let mut holding = self.holding.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut holding, trap)
    }
}

enum Piece {
    /// Bytes and when they came.
    Bytes(Instant, Bytes),
    /// Reset once everything before has been written.
    Cut,
}

/// Carries until one side ends or the link is cut.
pub(super) async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(shared.server));
    let Ok(Ok(server)) = connecting.await else {
        // A server that is away refuses; the nearest to it that a proxy can do is a reset.
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let wire = Wire::default();
    let mut to_client = Writer::new(&shared, to_client);
    let mut to_server = Writer::new(&shared, to_server);
    let end = {
        let (up, up_pieces) = mpsc::channel(UNDER_WAY);
        let (down, down_pieces) = mpsc::channel(UNDER_WAY);
        let requests = direction(
            read_requests(&shared, &wire, from_client, up),
            to_server.write(up_pieces),
        );
        let answers = direction(
            read_answers(&shared, &wire, from_server, down),
            to_client.write(down_pieces),
        );
        tokio::select! {
            end = requests => end,
            end = answers => end,
            _ = cuts.changed() => Ok(End::Reset),
        }
    };
    if !matches!(end, Ok(End::Closed)) {
        for half in [to_client.half, to_server.half] {
            let _ = half.as_ref().set_zero_linger();
            // Dropped, it would say goodbye first.
            half.forget();
        }
    }
}

/// Reads and writes until the end of what there was to read has been written, or something breaks.
async fn direction(
    read: impl Future<Output = io::Result<End>>,
    write: impl Future<Output = io::Result<End>>,
) -> io::Result<End> {
    tokio::pin!(read, write);
    tokio::select! {
        end = &mut read => match end {
            Ok(End::Closed) => write.await,
            other => other,
        },
        end = &mut write => end,
    }
}

/// Reads what the client says and looks for the moments in it.
async fn read_requests(
    shared: &Shared,
    wire: &Wire,
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<Piece>,
) -> io::Result<End> {
    let mut scanner = Scanner::default();
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(End::Closed);
        }
        let chunk = Bytes::copy_from_slice(&buffer[..length]);
        let marks = match shared.protocol {
            Protocol::Postgres => scanner.scan(&chunk),
            Protocol::Http => http::scan(&chunk).into_iter().collect(),
            Protocol::Opaque => Vec::new(),
        };
        let mut sent = 0;
        for Mark { start, end, point } in marks {
            match reaction(shared, point) {
                Reaction::None => continue,
                Reaction::Hold(trap) if trap.hold == Hold::Request => {
                    send(&pieces, chunk.slice(sent..start.max(sent))).await;
                    sent = start.max(sent);
                    let mut releases = shared.releases.subscribe();
                    trap.tell(&shared.name);
                    tokio::select! {
                        _ = releases.changed() => {}
                        // What is held dies with its sender: the server must hear of that as without us.
                        () = gone(&mut from) => return Ok(End::Closed),
                    }
                }
                Reaction::Hold(trap) => {
                    wire.hold(Some(trap));
                    wire.hold_answers.store(true, Ordering::Release);
                }
                Reaction::CutSent => {
                    send(&pieces, chunk.slice(sent..end)).await;
                    let _ = pieces.send(Piece::Cut).await;
                    // The writer ends the connection.
                    std::future::pending::<()>().await;
                }
                Reaction::CutAnswered => wire.cut_at_answer.store(true, Ordering::Release),
            }
        }
        send(&pieces, chunk.slice(sent..)).await;
    }
}

/// Waits until the other side has closed the connection.
async fn gone(from: &mut OwnedReadHalf) {
    match from.peek(&mut [0]).await {
        Ok(0) | Err(_) => {}
        // It has more to say, and will not be asked before what is held goes on.
        Ok(_) => std::future::pending().await,
    }
}

enum Reaction {
    None,
    Hold(Trap),
    CutSent,
    CutAnswered,
}

/// What happens at a moment.
fn reaction(shared: &Shared, point: Point) -> Reaction {
    let mut traps = shared.traps();
    let found = traps.iter().position(|trap| trap.wants(point));
    let trap = found.map(|place| traps.swap_remove(place));
    drop(traps);
    if let Some(trap) = trap.filter(Trap::spring) {
        return Reaction::Hold(trap);
    }
    let ambiguous = shared.condition.borrow().ambiguous;
    let Point::Commit(writes) = point else {
        return Reaction::None;
    };
    if !shared.happens(ambiguous) {
        return Reaction::None;
    }
    let untold = shared.happens(0.5);
    shared.tally.count(writes, untold);
    if untold {
        Reaction::CutAnswered
    } else {
        Reaction::CutSent
    }
}

async fn read_answers(
    shared: &Shared,
    wire: &Wire,
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<Piece>,
) -> io::Result<End> {
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(End::Closed);
        }
        if wire.cut_at_answer.load(Ordering::Acquire) {
            return Ok(End::Reset);
        }
        if wire.hold_answers.swap(false, Ordering::AcqRel) {
            let mut releases = shared.releases.subscribe();
            if let Some(trap) = wire.hold(None) {
                trap.tell(&shared.name);
            }
            let _ = releases.changed().await;
        }
        let chunk = Bytes::copy_from_slice(&buffer[..length]);
        let before = wire.answered.fetch_add(length as u64, Ordering::Relaxed);
        let most = shared.condition.borrow().cut_after;
        if let Some(most) = most.filter(|most| before + length as u64 > *most) {
            let left = usize::try_from(most.saturating_sub(before)).unwrap_or(length);
            send(&pieces, chunk.slice(..left.min(length))).await;
            shared.tally.cut.fetch_add(1, Ordering::Relaxed);
            let _ = pieces.send(Piece::Cut).await;
            std::future::pending::<()>().await;
        }
        send(&pieces, chunk).await;
    }
}

async fn send(pieces: &mpsc::Sender<Piece>, bytes: Bytes) {
    if !bytes.is_empty() {
        // Without a writer the connection is at its end.
        let _ = pieces.send(Piece::Bytes(Instant::now(), bytes)).await;
    }
}

/// The end of a direction: late, deaf, or as it should be.
struct Writer<'a> {
    shared: &'a Shared,
    half: OwnedWriteHalf,
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared, half: OwnedWriteHalf) -> Self {
        Self { shared, half }
    }

    async fn write(&mut self, mut pieces: mpsc::Receiver<Piece>) -> io::Result<End> {
        let mut condition = self.shared.condition.subscribe();
        while let Some(piece) = pieces.recv().await {
            if let Piece::Bytes(came, _) = &piece {
                // The condition of now: what waits behind a delay that has ended goes at once.
                let delay = condition.borrow_and_update().delay;
                tokio::time::sleep_until(*came + delay).await;
            }
            // The sender lives in `shared`, so the wait cannot fail.
            let _ = condition.wait_for(|now| !now.deaf).await;
            match piece {
                Piece::Bytes(_, bytes) => self.half.write_all(&bytes).await?,
                Piece::Cut => return Ok(End::Reset),
            }
        }
        Ok(End::Closed)
    }
}
