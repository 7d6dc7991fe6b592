//! Following a reply by WebSocket: everything of the person comes, the reply's log is resumed by id
//! wherever the socket breaks, or is closed because its replica goes.

use std::collections::HashSet;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;

use super::Conversation;
use super::api::Api;
use super::stream::{AGAIN, Seen};

/// A socket is pinged at least this often.
const SILENCE: Duration = Duration::from_secs(40);

/// Reads to the end of the generation, or until `give_up`.
pub(crate) async fn follow(
    api: &Api,
    conversation: &Conversation,
    generation: Uuid,
    expected: &str,
    give_up: impl Fn() -> bool,
) -> Seen {
    let mut seen = Seen {
        by: "socket",
        ..Seen::default()
    };
    while seen.end.is_none() && !give_up() {
        // Whatever breaks it, it is opened again.
        let reading = read(api, conversation, generation, expected, &mut seen);
        let given_up = async {
            while !give_up() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        // One that stays open for ever without the end is given up as well.
        tokio::select! {
            _ = reading => {}
            () = given_up => {}
        }
        if seen.end.is_none() {
            seen.resumed += 1;
            tokio::time::sleep(AGAIN).await;
        }
    }
    seen
}

/// Reads one socket until it ends, or the generation does.
async fn read(
    api: &Api,
    conversation: &Conversation,
    generation: Uuid,
    expected: &str,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let url = api.front(api.turn()).replacen("http://", "ws://", 1) + "/api/chat/ws";
    let mut request = url.into_client_request()?;
    let authorization = conversation.authorization.parse()?;
    request.headers_mut().insert("authorization", authorization);
    let opening = tokio_tungstenite::connect_async(request);
    let (mut socket, _) = tokio::time::timeout(SILENCE, opening).await??;
    let resume = json!({"type": "resume", "generation_id": generation, "after": seen.last});
    socket.send(Message::text(resume.to_string())).await?;
    socket.send(Message::text(r#"{"type":"ping"}"#)).await?;
    let mut early = Early::default();
    while seen.end.is_none() {
        let message = tokio::time::timeout(SILENCE, socket.next()).await?;
        let Some(message) = message.transpose()? else {
            break;
        };
        let Message::Text(text) = message else {
            continue;
        };
        let frame: Value = serde_json::from_str(&text)?;
        let is_ours = frame["generation_id"].as_str() == Some(&generation.to_string());
        match (frame["type"].as_str(), frame["id"].as_str()) {
            // The database is away; the next socket may do better.
            (Some("error"), _) => break,
            (Some("pong"), _) => early.resumed(),
            (Some(kind), Some(id)) if is_ours && early.wants(seen.last.as_deref(), id) => {
                seen.take(id, kind, &frame, expected);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A socket tells what is live from its beginning, and so perhaps before it has heard that it is to
/// resume: what comes too early, the log brings again.
#[derive(Debug, Default)]
struct Early {
    began: bool,
    /// Events that were taken before the log was asked for.
    taken: HashSet<String>,
    /// How many more may be on their way; none is known before the server has heard us.
    left: Option<u32>,
}

impl Early {
    /// The server has heard the wish; one event may have been waiting to be sent.
    fn resumed(&mut self) {
        self.left = Some(1);
    }

    /// Whether an event is the next one, or else a fault.
    fn wants(&mut self, last: Option<&str>, id: &str) -> bool {
        if last.is_some_and(|last| id <= last) && self.taken.remove(id) {
            return false;
        }
        let is_early = self.left != Some(0);
        if !self.began && leaves_a_hole(last, id, is_early) {
            self.left = self.left.map(|left| left.saturating_sub(1));
            return false;
        }
        self.began = true;
        match &mut self.left {
            Some(0) => {}
            left => {
                *left = left.map(|left| left - 1);
                self.taken.insert(id.to_owned());
            }
        }
        true
    }
}

/// Whether events are missing between the two. A new attempt may follow any event, but one that is told
/// of too early follows those of the old one that the log has. The end has no number of its own.
fn leaves_a_hole(last: Option<&str>, id: &str, is_early: bool) -> bool {
    let numbers = |id: &str| -> Option<(u32, u32)> {
        let mut parts = id.rsplit('.');
        let seq = parts.next()?.parse().ok()?;
        Some((parts.next()?.parse().ok()?, seq))
    };
    let (Some((attempt, seq)), before) = (numbers(id), last.and_then(numbers)) else {
        return false;
    };
    match before {
        _ if seq == u32::MAX => false,
        Some((same, before)) if same == attempt => seq > before + 1,
        None if attempt == 0 => seq > 1,
        _ => seq > 1 || is_early,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(attempt: u32, seq: u32) -> String {
        format!("g.{attempt:04}.{seq:010}")
    }

    /// The events that are taken of those that come after `last`.
    fn taken(early: &mut Early, last: &mut Option<String>, come: &[(u32, u32)]) -> Vec<u32> {
        let mut taken = Vec::new();
        for (attempt, seq) in come {
            let id = id(*attempt, *seq);
            if early.wants(last.as_deref(), &id) {
                *last = Some(id);
                taken.push(*seq);
            }
        }
        taken
    }

    #[test]
    fn what_is_live_before_the_log_is_taken_once_and_leaves_no_hole() {
        let mut early = Early::default();
        let mut last = Some(id(1, 4));
        let come = [(1, 7), (1, 8), (1, 5), (1, 6), (1, 7), (1, 8)];
        assert_eq!(taken(&mut early, &mut last, &come), [5, 6, 7, 8]);
        let mut early = Early::default();
        let mut last = Some(id(1, 4));
        let come = [(1, 5), (1, 6), (1, 5), (1, 6), (1, 7)];
        assert_eq!(taken(&mut early, &mut last, &come), [5, 6, 7]);
        let mut early = Early::default();
        let come = [(1, 3), (0, 1), (1, 1), (1, 2), (1, 3), (1, u32::MAX)];
        assert_eq!(taken(&mut early, &mut None, &come), [1, 1, 2, 3, u32::MAX]);
    }

    #[test]
    fn a_repetition_after_that_is_let_through_to_be_judged() {
        let mut early = Early::default();
        let mut last = Some(id(1, 4));
        early.resumed();
        let come = [(1, 5), (1, 6), (1, 6), (1, 9)];
        assert_eq!(taken(&mut early, &mut last, &come), [5, 6, 6, 9]);
    }
}
