//! Costs that nobody lived to book, or that the upstream was slow to tell.

use loadtest::simulator::Outcome;

use crate::common::{Fleet, is_completed};

/// Asks at once.
const ASKS: [(&str, &str); 2] = [("COST_REFRESH", "0.1"), ("COST_ASK_AFTER", "0")];

/// What the ledger and the table of usage say of calls with this outcome.
async fn booked(fleet: &Fleet, outcome: &str) -> String {
    let sql = format!(
        "SELECT string_agg(a.wasted || ' ' || a.prompt_tokens || '+' || a.completion_tokens || ' ' || trim_scale(a.cost_credits)
                           || ', ' || u.wasted || ' ' || u.prompt_tokens || '+' || u.completion_tokens
                           || ' ' || trim_scale(u.cost_credits), '; ')
         FROM chat.attempts a JOIN chat.usage_tracking u ON u.id = a.id WHERE a.outcome = '{outcome}'"
    );
    fleet.env.value(&sql).await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_call_of_a_worker_that_died_is_booked_by_another() {
    let fleet = Fleet::new().await;
    let first = fleet.worker("w1");
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "Once. [[sim:hold=5,times=1]]")
        .await;
    fleet
        .until(async || {
            let noted = "SELECT count(*) FROM chat.attempts WHERE outcome = 'running'";
            (fleet.env.value(noted).await.unwrap() == "1").then_some(())
        })
        .await;
    fleet.streaming(generation.id).await;
    first.kill();
    let lost = fleet
        .simulator
        .wait_for_call(|call| call.outcome == Outcome::Disconnected)
        .await;
    let _second = fleet.worker_with("w2", &ASKS);
    assert!(is_completed(&fleet.ended(generation.id).await));
    // It might still run, for all the ledger knows, so it is not asked about for a long time.
    fleet
        .until(async || {
            let far =
                "SELECT count(*) FROM chat.cost_questions WHERE ask_at > now() + interval '1 hour'";
            (fleet.env.value(far).await.unwrap() == "1").then_some(())
        })
        .await;
    assert_eq!(booked(&fleet, "lost").await, "");
    fleet
        .env
        .execute("UPDATE chat.cost_questions SET ask_at = now()")
        .await;
    let tokens = format!("{}+{}", lost.prompt_tokens, lost.completion_tokens);
    let cost = lost.cost.unwrap();
    let expected = format!("true {tokens} {cost}, true {tokens} {cost}");
    fleet
        .until(async || (booked(&fleet, "lost").await == expected).then_some(()))
        .await;
    let left = "SELECT count(*) FROM chat.cost_questions";
    assert_eq!(fleet.env.value(left).await.unwrap(), "0");
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_asked_again_until_it_knows_and_not_for_ever() {
    let fleet = Fleet::new().await;
    let mut slow = fleet.simulator.settings();
    slow.generation_lag_ms = 600_000;
    fleet.simulator.set_settings(slow.clone());
    let _worker = fleet.worker_with("w1", &ASKS);
    let conversation = fleet.conversation().await;
    let generation = fleet
        .send(conversation, "What? [[sim:no_cost,no_usage]]")
        .await;
    assert!(is_completed(&fleet.ended(generation.id).await));
    let question = |what: &str| format!("SELECT {what} FROM chat.cost_questions");
    let is = async |what: &str| {
        let sql = question(what);
        fleet
            .until(async || (fleet.env.value(&sql).await.as_deref() == Some("true")).then_some(()))
            .await;
    };
    is("tries = 1 AND ask_at > now() + interval '10 seconds'").await;
    // The twelfth time is the last.
    fleet
        .env
        .execute("UPDATE chat.cost_questions SET tries = 11, ask_at = now()")
        .await;
    is("tries = 12 AND given_up_at IS NOT NULL").await;
    let unknown = "SELECT count(*) FROM chat.usage_tracking WHERE operation = 'completion' AND cost_credits IS NULL";
    assert_eq!(fleet.env.value(unknown).await.unwrap(), "1");

    // An operator may have it asked once more.
    slow.generation_lag_ms = 0;
    fleet.simulator.set_settings(slow);
    fleet
        .env
        .execute("UPDATE chat.cost_questions SET given_up_at = NULL, tries = 0, ask_at = now()")
        .await;
    fleet
        .until(async || (fleet.env.value(unknown).await.unwrap() == "0").then_some(()))
        .await;
    let call = fleet.simulator.calls().remove(0);
    let (prompt, completion) = (call.prompt_tokens, call.completion_tokens);
    let known = format!("false {prompt}+{completion} 0, false {prompt}+{completion} 0");
    assert!(booked(&fleet, "completed").await.contains(&known));
    // The reply keeps what was told of it.
    let usage = fleet.generation(generation.id).await.usage.unwrap();
    assert_eq!((usage.cost_credits, usage.prompt_tokens), (None, 0));
}
