//! Conversations that are longer than their prompts.

use shared::domain::{ContextUse, Generation};
use uuid::Uuid;

use crate::common::{Fleet, is_completed};

const SMALL: (&str, &str) = ("MAX_CONVERSATION_HISTORY_TOKENS", "600");
const NOTES: &str = "Write the notes now.";

/// About sixty tokens, beside the reply's 24.
async fn say(fleet: &Fleet, conversation: Uuid, turn: usize) -> (Generation, ContextUse) {
    let content = format!("This is turn {turn}. {}", "And so on. ".repeat(20));
    let generation = fleet.send(conversation, &content).await;
    let done = fleet.ended(generation.id).await;
    assert!(is_completed(&done), "{done:?}");
    let context = done.context.expect("a gauge");
    assert_eq!(context.budget, 600);
    assert!(context.used <= context.budget, "{context:?}");
    (done, context)
}

async fn version(fleet: &Fleet) -> i32 {
    let sql = "SELECT COALESCE(max(version), 0) FROM chat.conversation_summaries";
    fleet.env.value(sql).await.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prompt_has_no_room_for_is_summarised_and_not_dropped() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker_with("w1", &[SMALL, ("SUMMARY_MODEL", "test/notes:free")]);
    let conversation = fleet.conversation().await;
    let mut summarised = 0;
    for turn in 1..=24 {
        let before = version(&fleet).await;
        let (generation, context) = say(&fleet, conversation, turn).await;
        assert_eq!(context.dropped, 0, "turn {turn}: {context:?}");
        // Nothing is forgotten again.
        assert!(context.summarised >= summarised, "turn {turn}: {context:?}");
        summarised = context.summarised;
        let call = fleet.simulator.calls_containing(&format!("turn {turn}."));
        let shown = i64::try_from(call[0].messages).unwrap() - 1;
        let said = 2 * i64::try_from(turn).unwrap() - 1;
        assert_eq!(shown + context.summarised, said, "turn {turn}");
        // The next turn might come before the summary; this test waits for it.
        if context.used * 4 >= context.budget * 3 {
            fleet
                .until(async || (version(&fleet).await > before).then_some(()))
                .await;
        }
        let usage = generation.usage.unwrap();
        let counted = format!(
            "SELECT token_count FROM chat.messages WHERE id = '{}'",
            generation.assistant_message_id.unwrap()
        );
        let counted = fleet.env.value(&counted).await.unwrap();
        assert_eq!(
            counted,
            usage.completion_tokens.to_string(),
            "as the model counts"
        );
    }
    assert!(version(&fleet).await >= 3);
    assert!(summarised >= 24, "{summarised}");
    let notes = fleet.simulator.calls_containing(NOTES);
    assert!(notes.iter().all(|call| call.model == "test/notes:free"));
    let content = "SELECT content FROM chat.conversation_summaries WHERE version = 1";
    assert_eq!(
        fleet.env.value(content).await.unwrap(),
        fleet.simulator.expected_reply(NOTES)
    );
    let booked = "SELECT count(*) FROM chat.usage_tracking u JOIN chat.attempts a USING (id)
                  WHERE u.operation = 'summary' AND a.operation = 'summary' AND NOT u.wasted AND NOT a.wasted";
    let booked = fleet.env.value(booked).await.unwrap();
    assert_eq!(booked, notes.len().to_string());
    // Another reply to an old message knows nothing that came after it.
    let old = "SELECT bool_and(up_to > conversation_id) FROM chat.conversation_summaries";
    assert_eq!(fleet.env.value(old).await.unwrap(), "true");
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_for_it_the_gauge_says_what_is_left_out() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker_with("w1", &[SMALL, ("SUMMARY_MODEL", "none")]);
    let conversation = fleet.conversation().await;
    for turn in 1..=12 {
        let (_, context) = say(&fleet, conversation, turn).await;
        let call = fleet.simulator.calls_containing(&format!("turn {turn}."));
        let shown = i64::try_from(call[0].messages).unwrap() - 1;
        let said = 2 * i64::try_from(turn).unwrap() - 1;
        assert_eq!(
            (context.summarised, shown + context.dropped),
            (0, said),
            "turn {turn}"
        );
    }
    assert_eq!(version(&fleet).await, 0);
    assert!(fleet.simulator.calls_containing(NOTES).is_empty());
}
