//! The page of those who keep the knowledge base, and the help desk in the console, in a real browser.

use serde_json::json;

use crate::browser::Browser;
use crate::common::{Client, TestApp, token_with, until};
use crate::knowledge::{editor, index};

const FILE: &str = "\u{feff}Menu;MASALAH;Solusi;Catatan Dev;Warna\\r\\n\
    Akun;Lupa kata sandi dan akun terkunci;Atur ulang password lewat menu Lupa Sandi;;biru\\r\\n\
    Penatausahaan SPP;\"SPP tidak bisa disimpan\\nkarena pagu terlampaui\";Periksa sisa pagu pada DPA;cek kolom pagu;\\r\\n\
    ;;;hanya catatan;\\r\\n\
    Pelaporan;Neraca tidak seimbang;Periksa jurnal penyesuaian;;\\r\\n";

/// The page of the knowledge base as this administrator; none without a browser.
async fn open(editor: &Client, part: &str, width: u32, height: u32) -> Option<Browser> {
    let mut browser = Browser::start(width, height).await?;
    let token = editor.bearer().unwrap();
    browser
        .open(&format!("{}/knowledge#token={token}", editor.url))
        .await;
    browser
        .wait("document.readyState === 'complete' && !!document.querySelector('[data-part]') && !location.hash.includes('token')")
        .await;
    browser.click(&format!("tab-{part}")).await;
    browser
        .wait(&format!("!!document.querySelector('[data-part={part}]')"))
        .await;
    Some(browser)
}

fn part(id: &str) -> String {
    format!("(document.querySelector('[data-testid={id}]')?.innerText ?? '')")
}

/// Waits until the element with this test id shows the text.
async fn shows(browser: &mut Browser, id: &str, text: &str) {
    let text = serde_json::to_string(text).unwrap();
    browser
        .wait(&format!("{}.includes({text})", part(id)))
        .await;
}

/// Chooses a file as a person does in the dialog of the browser.
async fn choose(browser: &mut Browser, name: &str, content: &str) {
    let script = format!(
        "{{ const files = new DataTransfer(); files.items.add(new File([`{content}`], '{name}', {{ type: 'text/csv' }}));
            const input = document.querySelector('[data-testid=file]');
            input.files = files.files; input.dispatchEvent(new Event('change')); }}"
    );
    browser.value(&script).await;
}

/// On a phone nothing may need scrolling sideways.
async fn fits(browser: &mut Browser) {
    let widths = "[document.documentElement.scrollWidth, window.innerWidth]";
    let fits = browser
        .value("document.documentElement.scrollWidth <= window.innerWidth")
        .await;
    assert_eq!(fits, true, "{}", browser.value(widths).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_shown_before_it_is_indexed_watched_and_tried() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let Some(mut browser) = open(&editor, "files", 1280, 900).await else {
        return;
    };
    choose(&mut browser, "sipd.csv", FILE).await;
    shows(
        &mut browser,
        "preview-facts",
        "4 rows · UTF-8 · separated by semicolons",
    )
    .await;
    shows(&mut browser, "preview-columns", "MASALAH → Issue").await;
    shows(&mut browser, "preview-columns", "Warna → left out").await;
    shows(&mut browser, "preview-rows", "Neraca tidak seimbang").await;
    shows(
        &mut browser,
        "problems",
        "line 5 there is neither an issue nor a solution",
    )
    .await;
    assert_eq!(
        app.count("knowledge_ingestions").await,
        "0",
        "a look stores nothing"
    );

    browser.click("index-file").await;
    browser
        .wait("document.querySelector('[data-testid=ingestion]')?.dataset.status === 'completed'")
        .await;
    shows(&mut browser, "ingestion-state", "sipd.csv indexed").await;
    shows(
        &mut browser,
        "ingestion-counts",
        "4 rows · 3 new · 1 skipped",
    )
    .await;
    shows(&mut browser, "ingestions", "sipd.csv").await;

    browser.click("tab-search").await;
    browser.type_into("question", "akun kekunci").await;
    browser.click("search").await;
    shows(&mut browser, "verdict", "This would be answered.").await;
    shows(&mut browser, "results", "Lupa kata sandi dan akun terkunci").await;
    let legs = "[...document.querySelectorAll('[data-testid=result]:first-child [data-leg]')].map((leg) => leg.innerText.replace(/\\s+/g, ' ').trim())";
    let legs = browser.value(legs).await;
    for (leg, name) in [(0, "By words #1 "), (1, "By meaning #1 0.")] {
        assert!(legs[leg].as_str().unwrap().starts_with(name), "{legs}");
    }

    // What is no file of the help desk is refused with its line.
    browser.click("tab-files").await;
    browser
        .wait("!!document.querySelector('[data-part=files]')")
        .await;
    choose(&mut browser, "cats.csv", "NAME;COLOUR\\r\\nTom;grey\\r\\n").await;
    shows(&mut browser, "file-problem", "cats.csv cannot be read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_after_a_reload_and_can_be_cancelled() {
    let app = TestApp::without_worker().await;
    let editor = editor(&app);
    let Some(mut browser) = open(&editor, "files", 360, 740).await else {
        return;
    };
    choose(&mut browser, "sipd.csv", FILE).await;
    browser.click("index-file").await;
    shows(
        &mut browser,
        "ingestion-state",
        "sipd.csv waits for a worker",
    )
    .await;
    fits(&mut browser).await;
    browser.reload().await;
    shows(
        &mut browser,
        "ingestion-state",
        "sipd.csv waits for a worker",
    )
    .await;
    browser.click("cancel-ingestion").await;
    shows(&mut browser, "ingestion-state", "sipd.csv cancelled").await;
    let status = "SELECT status FROM chat.knowledge_ingestions";
    assert_eq!(app.env.value(status).await.as_deref(), Some("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_refused_is_shown_and_tried_again() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let Some(mut browser) = open(&editor, "files", 1280, 900).await else {
        return;
    };
    let refusal = app.simulator.script_containing("ditolak", "400");
    let file = "MENU,ISSUE\\r\\nMenu,biasa saja\\r\\nMenu,ditolak dulu\\r\\n";
    choose(&mut browser, "sipd.csv", file).await;
    browser.click("index-file").await;
    shows(
        &mut browser,
        "ingestion-state",
        "sipd.csv indexed, with errors",
    )
    .await;
    shows(&mut browser, "problems", "line 3").await;
    assert!(app.simulator.remove_rule(refusal));
    browser.click("retry-ingestion").await;
    shows(&mut browser, "ingestion-state", "sipd.csv indexed.").await;
    browser
        .wait("!document.querySelector('[data-testid=retry-ingestion]')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_added_changed_and_deleted_on_a_phone() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let Some(mut browser) = open(&editor, "entries", 360, 740).await else {
        return;
    };
    shows(&mut browser, "entries-total", "Nothing is in default yet").await;
    browser.click("add-entry").await;
    browser.click("entry-save").await;
    shows(
        &mut browser,
        "entry-problem",
        "or solution must not be blank",
    )
    .await;
    browser.type_into("entry-menu", "TTE").await;
    browser.type_into("entry-issue", "Kartu token hilang").await;
    browser
        .type_into("entry-solution", "<b>Ajukan</b> token baru")
        .await;
    browser.click("entry-save").await;
    // What editors write is shown as they wrote it.
    shows(&mut browser, "entries", "<b>Ajukan</b> token baru").await;
    fits(&mut browser).await;
    browser.click("edit-entry").await;
    browser
        .value("document.querySelector('[data-testid=entry-solution]').value = ''")
        .await;
    browser.type_into("entry-solution", "Hubungi dinas").await;
    browser.click("entry-save").await;
    shows(&mut browser, "entries", "Hubungi dinas").await;
    shows(&mut browser, "entries", "version 2").await;
    browser.click("delete-entry").await;
    browser.click("confirm").await;
    shows(&mut browser, "entries-total", "Nothing is in default yet").await;
    assert_eq!(app.count("knowledge_documents").await, "0");
    for part in ["files", "search", "gaps", "proposals"] {
        browser.click(&format!("tab-{part}")).await;
        browser
            .wait(&format!("!!document.querySelector('[data-part={part}]')"))
            .await;
        fits(&mut browser).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_become_entries_and_so_do_proposals() {
    let app = TestApp::new().await;
    let editor = editor(&app);
    let person = app.user();
    let ask = async |message: &str| {
        let answer = person
            .post("/api/chat/support/chat", json!({ "message": message }))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.shown());
        answer.text("/session_id")
    };
    let session = ask("jadwal kereta ke Surabaya").await;
    ask("kereta ke Surabaya, jadwal?").await;
    let service = person.service();
    for (action, body) in [
        ("take", json!({ "user_id": person.user, "agent": "Sari" })),
        (
            "reply",
            json!({ "user_id": person.user, "agent": "Sari", "content": "Lihat papan di stasiun." }),
        ),
        (
            "resolve",
            json!({ "user_id": person.user, "reason": "dijawab" }),
        ),
    ] {
        let path = format!("/internal/support/{session}/{action}");
        let answer = service.post(&path, body).await;
        assert!(answer.status < 300, "{}", answer.shown());
    }
    let Some(mut browser) = open(&editor, "gaps", 1280, 900).await else {
        return;
    };
    shows(&mut browser, "gap-facts", "2 questions about 1 thing").await;
    shows(&mut browser, "gaps", "2 not answered").await;
    browser.click("write-entry").await;
    let issue = "document.querySelector('[data-testid=entry-issue]').value";
    assert_eq!(browser.value(issue).await, "jadwal kereta ke Surabaya");
    browser
        .type_into("entry-solution", "Tidak tersedia di sini")
        .await;
    browser.click("entry-save").await;
    shows(&mut browser, "toast", "The entry is in the knowledge base").await;

    browser.click("tab-proposals").await;
    shows(&mut browser, "proposals", "Lihat papan di stasiun.").await;
    browser.click("approve").await;
    browser.type_into("entry-menu", "Kereta").await;
    browser.click("entry-save").await;
    shows(
        &mut browser,
        "proposal-facts",
        "There is nothing to decide.",
    )
    .await;
    until(async || {
        let approved = editor
            .get("/api/chat/knowledge/proposals?state=approved")
            .await;
        let decided = approved.body["proposals"].as_array().unwrap().len() == 1;
        decided.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_token_does_not_open_the_page() {
    let app = TestApp::without_worker().await;
    let user = app.user();
    let Some(mut browser) = Browser::start(1280, 800).await else {
        return;
    };
    let token = user.bearer().unwrap();
    browser
        .open(&format!("{}/knowledge#token={token}", user.url))
        .await;
    browser
        .wait("(document.querySelector('#gate-reason')?.innerText ?? '').includes('not an administrator')")
        .await;
    // Nor does one that only claims to be an administrator's.
    let forged = crate::common::forged_token(user.user);
    let claims = token_with(json!({ "sub": user.user, "role": "admin" }));
    let forged: Vec<&str> = forged.split('.').collect();
    let claims: Vec<&str> = claims.split('.').collect();
    browser
        .type_into(
            "token-input",
            &format!("{}.{}.{}", claims[0], claims[1], forged[2]),
        )
        .await;
    browser.click("token-submit").await;
    browser
        .wait("(document.querySelector('#gate-reason')?.innerText ?? '').includes('no longer accepts')")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_help_desk_opens_what_it_was_made_of() {
    let app = TestApp::new().await;
    index(
        &editor(&app),
        b"MENU,ISSUE,EXPECTED\nAkun,Lupa kata sandi dan akun terkunci,Atur ulang lewat menu Lupa Sandi\n",
    )
    .await;
    let person = app.user();
    let Some(mut browser) = Browser::start(360, 740).await else {
        return;
    };
    let token = person.bearer().unwrap();
    browser
        .open(&format!("{}/#token={token}", person.url))
        .await;
    browser
        .wait("document.readyState === 'complete' && !location.hash.includes('token')")
        .await;
    browser.click("new-desk").await;
    browser.wait("location.hash === '#desk'").await;
    browser
        .type_into("composer", "akun saya kekunci, lupa kata sandi")
        .await;
    browser.click("send").await;
    shows(&mut browser, "sources", "[1]").await;
    shows(&mut browser, "sources", "Akun: Lupa kata sandi").await;
    browser
        .value("document.querySelector('[data-testid=source] summary').click()")
        .await;
    shows(
        &mut browser,
        "source-text",
        "Atur ulang lewat menu Lupa Sandi",
    )
    .await;
    browser
        .wait("document.querySelectorAll('[data-testid=suggestions] button').length === 3")
        .await;
    fits(&mut browser).await;
    let listed = person
        .get("/api/chat/conversations?context_type=support")
        .await;
    assert_eq!(listed.body["total"], 1, "{}", listed.shown());

    // A person answers, and the page shows it and who it was.
    let session = listed.text("/conversations/0/id");
    let service = person.service();
    let held = json!({ "user_id": person.user, "agent": "Sari" });
    service
        .post(&format!("/internal/support/{session}/take"), held)
        .await;
    let said = json!({ "user_id": person.user, "agent": "Sari", "content": "Saya bantu, Bu." });
    service
        .post(&format!("/internal/support/{session}/reply"), said)
        .await;
    let last =
        "[...document.querySelectorAll('[data-testid=message-assistant]')].at(-1)?.innerText ?? ''";
    browser
        .wait(&format!(
            "({last}).includes('Saya bantu, Bu.') && ({last}).includes('Sari')"
        ))
        .await;
}
