//! Which turns of a conversation a model gets to see, and in which form.

use shared::domain::SenderType;

use super::{Turn, is_image};
use crate::upstream::{ChatMessage, ChatRole, Content, Part};

/// The newest turns that fit the budget, oldest first. The newest one is there even if it alone
/// exceeds it. Older turns are left out as a whole, from the oldest on: a gap in the middle would
/// read as if it had never been said.
pub(super) fn within(turns: &[Turn], budget: u32) -> Vec<&Turn> {
    let mut shown: Vec<&Turn> = turns.iter().filter(|turn| !turn.superseded).collect();
    let Some(newest) = shown.pop().or(turns.last()) else {
        return Vec::new();
    };
    // Where the newest alone exceeds it, not even a turn that costs nothing may join.
    let Some(mut room) = budget.checked_sub(newest.cost()) else {
        return vec![newest];
    };
    let mut from = shown.len();
    while let Some(cost) = from.checked_sub(1).map(|older| shown[older].cost())
        && cost <= room
    {
        room -= cost;
        from -= 1;
    }
    // A reply whose question did not fit only confuses. At the very beginning it is a greeting.
    if from > 0 {
        while shown
            .get(from)
            .is_some_and(|turn| turn.sender == SenderType::Assistant)
        {
            from += 1;
        }
    }
    let mut kept = shown.split_off(from);
    kept.push(newest);
    kept
}

/// A turn as a message. Images become parts that the provider fetches; of other files the model
/// only learns that they are there.
pub(super) fn message(turn: &Turn) -> ChatMessage {
    let role = match turn.sender {
        SenderType::User => ChatRole::User,
        SenderType::Assistant => ChatRole::Assistant,
        SenderType::System => ChatRole::System,
    };
    let mut text = turn.content.clone();
    for file in turn
        .attachments
        .iter()
        .filter(|attachment| !is_image(attachment))
    {
        text.push_str(&format!(
            "\n[Attached file, {}: {}]",
            file.media_type, file.url
        ));
    }
    let images: Vec<Part> = turn
        .attachments
        .iter()
        .filter(|attachment| is_image(attachment) && turn.sender == SenderType::User)
        .map(|image| Part::image(&image.url))
        .collect();
    if images.is_empty() {
        return ChatMessage::text(role, text);
    }
    let text = Some(text)
        .filter(|text| !text.trim().is_empty())
        .map(|text| Part::Text { text });
    ChatMessage {
        role,
        content: Content::Parts(text.into_iter().chain(images).collect()),
    }
}
