//! The users and conversations of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::http::Connection;
use super::options::Common;
use super::target::Target;
use super::token::Signer;

/// A conversation that messages can be sent to.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    /// The `Authorization` header of its user.
    pub(crate) authorization: Arc<str>,
    /// The path messages are posted to.
    pub(crate) path: String,
}

/// Everything a run needs before its first message.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) target: Target,
    /// The `Authorization` headers of the users.
    pub(crate) users: Vec<Arc<str>>,
    pub(crate) conversations: Vec<Conversation>,
}

#[derive(Deserialize)]
struct Created {
    id: String,
}

impl World {
    /// Makes the users up and has their conversations created.
    pub(crate) async fn make(common: &Common, users: u32) -> anyhow::Result<Self> {
        let target = Target::resolve(&common.api, common.allow_remote).await?;
        let users = sign(common, common.users.unwrap_or(users))?;
        let wanted: Vec<Arc<str>> = (0..common.conversations)
            .flat_map(|_| users.iter().cloned())
            .collect();
        let total = wanted.len();
        let (wanted, next) = (Arc::new(wanted), Arc::new(AtomicUsize::new(0)));
        let mut makers = JoinSet::new();
        for _ in 0..common
            .connections
            .min(u32::try_from(total).unwrap_or(u32::MAX))
        {
            makers.spawn(create(
                Connection::new(target.clone()),
                Arc::clone(&wanted),
                Arc::clone(&next),
            ));
        }
        let mut conversations = Vec::with_capacity(total);
        while let Some(made) = makers.join_next().await {
            conversations.extend(made.context("a task died")??);
        }
        Ok(Self {
            target,
            users,
            conversations,
        })
    }
}

/// The `Authorization` headers of `count` new users.
pub(crate) fn sign(common: &Common, count: u32) -> anyhow::Result<Vec<Arc<str>>> {
    let signer = Signer::new(&common.jwt_secret, &common.tier)?;
    (0..count)
        .map(|_| signer.new_user().map(Arc::from))
        .collect()
}

async fn create(
    mut connection: Connection,
    wanted: Arc<Vec<Arc<str>>>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Conversation>> {
    let mut made = Vec::new();
    while let Some(authorization) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
        let body = Bytes::from_static(br#"{"title":"Load run","context_type":"general"}"#);
        let headers = [("authorization", authorization.as_ref())];
        let answer = connection
            .send(Method::POST, "/api/chat/conversations", &headers, body)
            .await?;
        if answer.status != StatusCode::CREATED {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            bail!("creating a conversation answered {}: {text}", answer.status);
        }
        let Created { id } =
            serde_json::from_slice(&answer.body).context("failed to read a new conversation")?;
        made.push(Conversation {
            authorization: Arc::clone(authorization),
            path: format!("/api/chat/conversations/{id}/messages"),
        });
    }
    Ok(made)
}
