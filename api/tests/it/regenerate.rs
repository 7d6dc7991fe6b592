//! Clicking twice.

use serde_json::json;

use crate::common::{TestApp, conversation};

#[tokio::test]
async fn two_clicks_within_a_second_are_one_generation() {
    let app = TestApp::new().await;
    let user = app.user();
    let id = conversation(&user).await;
    let message = user.ask(&id, "Hi").await.text("/assistant_message/id");
    let path = format!("/api/chat/conversations/{id}/messages/{message}/regenerate");
    let click = |model: Option<&str>| {
        let body = model.map_or_else(|| json!({}), |model| json!({ "model": model }));
        let (user, path) = (user.clone(), path.clone());
        async move { user.post(&path, body).await }
    };
    let (first, second) = tokio::join!(click(None), click(None));
    assert_eq!((first.status, second.status), (202, 202));
    let (first, second) = (first.text("/generation/id"), second.text("/generation/id"));
    // Both may have begun more than a second apart on a machine that stands still.
    let apart = String::from(
        "SELECT count(DISTINCT id) FROM chat.generations WHERE kind = 'regenerate' AND id NOT IN (
             SELECT b.id FROM chat.generations a, chat.generations b
             WHERE a.id < b.id AND a.kind = 'regenerate' AND b.queued_at - a.queued_at >= interval '1 second')"
    );
    assert_eq!(app.env.value(&apart).await.unwrap(), "1");
    if app
        .env
        .value("SELECT count(*) FROM chat.generations WHERE kind = 'regenerate'")
        .await
        .unwrap()
        == "1"
    {
        assert_eq!(first, second);
    }
    // By another model it is another wish.
    let other = "meta-llama/llama-3.2-3b-instruct:free";
    let third = click(Some(other)).await.text("/generation/id");
    assert_ne!(first, third);
    // And so it is later on.
    user.ended(&first).await;
    app.env
        .execute("UPDATE chat.generations SET queued_at = queued_at - interval '2 seconds'")
        .await;
    let fourth = click(None).await.text("/generation/id");
    assert!(![&first, &second, &third].contains(&&fourth));
    user.ended(&third).await;
    user.ended(&fourth).await;
}
