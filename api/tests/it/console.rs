//! The console in a real browser.

use serde_json::{Value, json};
use shared::config::Vars;
use uuid::Uuid;

use crate::browser::Browser;
use crate::common::{Client, TestApp, until};
use crate::publisher::Publisher;

/// The newest reply, and parts of it.
const REPLY: &str = "[...document.querySelectorAll('[data-testid=message-assistant]')].at(-1)";

/// The console as this user, with nothing in it yet; none without a browser.
async fn console(user: &Client, width: u32, height: u32) -> Option<Browser> {
    let mut browser = Browser::start(width, height).await?;
    browser
        .open(&format!("{}/#token={}", user.url, user.bearer().unwrap()))
        .await;
    // Once the scripts run, the token leaves the address.
    browser
        .wait("document.readyState === 'complete' && !location.hash.includes('token')")
        .await;
    Some(browser)
}

async fn send(browser: &mut Browser, text: &str) {
    browser.type_into("composer", text).await;
    browser.click("send").await;
    browser
        .wait("document.querySelector('[data-testid=composer]').value === ''")
        .await;
}

/// Waits until the newest reply has this status.
async fn status(browser: &mut Browser, status: &str) {
    browser
        .wait(&format!("{REPLY}?.dataset.status === '{status}'"))
        .await;
}

/// The text of the newest reply, its blanks folded.
async fn text(browser: &mut Browser) -> String {
    let text = browser
        .value(&format!(
            "{REPLY}?.querySelector('.prose')?.innerText ?? ''"
        ))
        .await;
    text.as_str()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The one reply that is stored, as it is sent to clients.
async fn stored(user: &Client) -> Vec<Value> {
    let conversations = user.get("/api/chat/conversations").await;
    let id = conversations.text("/conversations/0/id");
    let messages = user
        .get(&format!("/api/chat/conversations/{id}/messages"))
        .await;
    let messages = messages.body["messages"].as_array().unwrap().clone();
    messages
        .into_iter()
        .filter(|message| message["sender_type"] == "assistant")
        .collect()
}

#[tokio::test]
async fn a_reply_streams_in_and_a_reload_in_its_middle_resumes_it() {
    let app = TestApp::new().await;
    let user = app.user();
    let Some(mut browser) = console(&user, 1280, 800).await else {
        return;
    };
    send(&mut browser, "Tell me of a day at work. [[sim:hold=6]]").await;
    status(&mut browser, "in_progress").await;
    browser
        .wait(&format!("({REPLY}?.innerText ?? '').includes('You asked')"))
        .await;

    browser.reload().await;
    status(&mut browser, "in_progress").await;
    browser
        .wait(&format!("({REPLY}?.innerText ?? '').includes('You asked')"))
        .await;
    app.simulator.release();
    status(&mut browser, "completed").await;
    let replies = stored(&user).await;
    assert_eq!(replies.len(), 1);
    let shown = text(&mut browser).await;
    let last_word = replies[0]["content"]
        .as_str()
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap()
        .to_owned();
    assert!(
        shown.starts_with("You asked") && shown.ends_with(&last_word),
        "{shown}"
    );
    assert_eq!(
        shown.matches("You asked").count(),
        1,
        "nothing is shown twice: {shown}"
    );
}

#[tokio::test]
async fn a_reply_can_be_stopped_and_keeps_its_text() {
    let app = TestApp::new().await;
    let user = app.user();
    let Some(mut browser) = console(&user, 360, 740).await else {
        return;
    };
    send(&mut browser, "Never end. [[sim:hold=6]]").await;
    status(&mut browser, "in_progress").await;
    browser
        .wait(&format!("({REPLY}?.innerText ?? '').includes('You asked')"))
        .await;
    browser.click("stop").await;
    status(&mut browser, "cancelled").await;
    assert!(text(&mut browser).await.starts_with("You asked"));
    // On a phone nothing may need scrolling sideways.
    let fits = browser
        .value("document.documentElement.scrollWidth <= window.innerWidth")
        .await;
    assert_eq!(fits, true);
}

#[tokio::test]
async fn a_reply_can_be_made_again_and_the_old_one_stays_reachable() {
    let app = TestApp::new().await;
    let user = app.user();
    let Some(mut browser) = console(&user, 1280, 800).await else {
        return;
    };
    send(&mut browser, "What is a ledger?").await;
    status(&mut browser, "completed").await;
    browser.click("regenerate").await;
    let pager =
        "document.querySelector('[data-testid=pager]')?.innerText.replace(/\\s+/g, ' ').trim()";
    browser
        .wait(&format!("{pager} === '2 / 2' || {pager} === '2/2'"))
        .await;
    status(&mut browser, "completed").await;
    browser.click("pager-earlier").await;
    browser
        .wait(&format!("({pager} ?? '').startsWith('1')"))
        .await;
    let replies = until(async || {
        let replies = stored(&user).await;
        (replies.len() == 2).then_some(replies)
    })
    .await;
    assert_eq!(replies[0]["superseded_by"], replies[1]["id"]);
}

#[tokio::test]
async fn a_conversation_deleted_elsewhere_leaves_the_page() {
    let app = TestApp::new().await;
    let user = app.user();
    let Some(mut browser) = console(&user, 1280, 800).await else {
        return;
    };
    send(&mut browser, "Forget this.").await;
    status(&mut browser, "completed").await;
    let conversations = user.get("/api/chat/conversations").await;
    let id = conversations.text("/conversations/0/id");
    let deleted = user.delete(&format!("/api/chat/conversations/{id}")).await;
    assert_eq!(deleted.status, 204);
    browser
        .wait("document.querySelector('#turns').dataset.trouble.includes('deleted')")
        .await;
    // Neither the page, nor its title, nor the list shows anything of it.
    browser
        .wait("!(document.title + document.querySelector('#console').innerText).includes('Forget this')")
        .await;
}

#[tokio::test]
async fn an_assessment_shows_its_stages_and_its_conversation_appears_by_itself() {
    let broker: Option<String> =
        Vars::from_process().optional("TEST_RABBITMQ_URL", "set by cargo xtask test");
    let Some(broker) = broker else { return };
    let name = Uuid::new_v4().simple().to_string();
    let (exchange, queue) = (format!("console-{name}"), format!("events-{name}"));
    let Some(mut publisher) = Publisher::start(&broker, &exchange) else {
        return;
    };
    let mut app = TestApp::with(&[
        ("RABBITMQ_URL", &broker),
        ("EXCHANGE_NAME", &exchange),
        ("CHAT_QUEUE_NAME", &queue),
    ])
    .await;
    app.start_worker();
    let user = app.user();
    let Some(mut browser) = console(&user, 1280, 800).await else {
        return;
    };
    // What is told before anybody listens is not shown.
    until(async || {
        let metrics = user.get("/metrics").await.raw;
        let open = "push_connections{transport=\"websocket\"} 1";
        metrics.contains(open).then_some(())
    })
    .await;
    let assessment = Uuid::new_v4();
    let stage =
        "document.querySelector('[data-testid=assessment-stage]:not([hidden])')?.dataset.stage";
    for (event, shown) in [
        ("assessment_submitted", "assessment_submitted"),
        ("analysis_started", "analysis_started"),
        ("analysis_complete", "chatbot_ready"),
    ] {
        let event = json!({
            "event": event, "user_id": user.user, "assessment_id": assessment,
            "results": { "riasec": { "I": 92, "R": 85 }, "ocean": { "O": 88 },
                         "personaProfile": { "summary": "Orang ini suka belajar dan ingin tahu." } },
        });
        publisher.publish("chat.events", &event).await;
        browser.wait(&format!("{stage} === '{shown}'")).await;
    }
    let list = "document.querySelector('[data-testid=conversation-list]').innerText";
    browser
        .wait(&format!("{list}.includes('Asesmen karier Anda')"))
        .await;
    browser.click("stage-open").await;
    browser
        .wait(&format!(
            "({REPLY}?.innerText ?? '').includes('Investigatif (92)')"
        ))
        .await;
    assert_eq!(stored(&user).await.len(), 1);
}
