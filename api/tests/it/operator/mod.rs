//! The operator's view: dead letters, queues, workers.

mod dead_letters;
mod dead_notifications;
mod queues;
mod upstreams;

use uuid::Uuid;

use crate::common::{Answer, Client, TestApp, conversation, fresh_id};

/// A message whose generation has failed; it would succeed the next time.
async fn fails(user: &Client) -> Answer {
    let id = conversation(user).await;
    let content = format!("[[sim:moderation,times=1]] what of {id}?");
    let answer = user.ask(&id, &content).await;
    assert_eq!(answer.text("/generation/status"), "failed");
    answer
}

/// A notification of somebody's generation, dead at both destinations. Returns its id.
pub(crate) async fn dead_notification(app: &TestApp, user: Uuid, generation: &str) -> String {
    let id = fresh_id();
    let rows = format!(
        "INSERT INTO chat.notifications (id, destination, user_id, conversation_id, generation_id, type, occurred_at,
                                         attempts, first_try_at, last_error, dead_at, dead_reason, request_id)
         SELECT '{id}', d.name, '{user}', g.conversation_id, g.id, 'chat.generation.failed', now(), 40,
                now() - interval '1 day', 'status 500', now(), 'tries_exhausted', 'request-1'
         FROM chat.notification_destinations d, chat.generations g WHERE g.id = '{generation}'"
    );
    assert_eq!(app.env.execute(&rows).await, 2);
    id
}
