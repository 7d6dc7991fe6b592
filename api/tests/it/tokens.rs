//! The size of messages, as it is stored with them.

use serde_json::json;

use crate::common::{TestApp, conversation, until};

/// Six tokens of OpenAI's vocabulary (its cookbook says so); seven by its length, and nine with the margin.
const WORD: &str = "antidisestablishmentarianism";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_counted_with_the_vocabulary_of_its_model() {
    let mut app = TestApp::with(&[
        ("USE_FREE_MODELS_ONLY", "false"),
        ("ALLOWED_MODELS", "openai/gpt-4o-mini"),
    ])
    .await;
    app.start_worker();
    let user = app.user().premium();
    let stored = async |message: &str| {
        let sql = format!("SELECT token_count FROM chat.messages WHERE id = '{message}'");
        app.env.value(&sql).await.unwrap()
    };
    for (model, size) in [
        ("openai/gpt-4o-mini", "6"),
        // No vocabulary of this family is at hand.
        ("meta-llama/llama-3.2-3b-instruct:free", "9"),
    ] {
        let id = conversation(&user).await;
        let path = format!("/api/chat/conversations/{id}/messages");
        let sent = json!({ "content": WORD, "model": model });
        let answer = user.post_with(&path, &[("prefer", "wait=30")], sent).await;
        assert_eq!(answer.text("/usage/model"), model, "{}", answer.shown());
        let message = answer.text("/user_message/id");
        until(async || (stored(&message).await == size).then_some(())).await;
        // A reply has the size that the model counted.
        let reply = answer.text("/assistant_message/id");
        let counted = answer.body["usage"]["completion_tokens"].to_string();
        assert_eq!(stored(&reply).await, counted);
    }
}
