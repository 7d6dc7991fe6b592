//! Dropping a run closes its connection, whatever it waits for.

use loadtest::simulator::{CallRecord, Outcome as Ended, Simulator};
use worker::upstream::{Unlimited, run};

use super::rig::{A, Listener, call, client, generate, models, soon};

/// Starts a run, waits until `reached`, drops it, and returns the call once it has ended.
async fn drop_when(script: &str, reached: impl Fn(&CallRecord) -> bool) -> CallRecord {
    let simulator = Simulator::start().await;
    simulator.script(script);
    let client = client(&simulator.base_url(), &[]);
    let (chain, call) = (models(&[A]), call("stop me"));
    let mut listener = Listener::default();
    {
        let mut running = Box::pin(run(&client, &chain, &call, &Unlimited, &mut listener));
        tokio::select! {
            outcome = &mut running => panic!("{script}: it ended by itself: {outcome:?}"),
            _ = soon(simulator.wait_for_call(reached)) => {}
        }
    }
    assert!(
        listener.records.is_empty(),
        "{script}: a dropped call is not reported"
    );
    soon(simulator.wait_for_call(|call| call.ended_us.is_some())).await
}

#[tokio::test]
async fn dropping_a_run_closes_the_connection() {
    for script in [
        "hold=3",
        "hang=3",
        "hang",
        "hang=body",
        "drip=100,tokens=10000",
    ] {
        let begun = |call: &CallRecord| match script {
            "hang" | "hang=body" => true,
            _ => call.tokens_sent >= 3,
        };
        let call = drop_when(script, begun).await;
        assert_eq!(call.outcome, Ended::Disconnected, "{script}");
    }
}

#[tokio::test]
async fn a_run_dropped_between_two_calls_makes_no_more() {
    let simulator = Simulator::start().await;
    simulator.script("429_upstream,retry_after=1.5");
    let client = client(&simulator.base_url(), &[]);
    let (chain, call) = (models(&[A]), call("stop me"));
    let mut listener = Listener::default();
    {
        let mut running = Box::pin(run(&client, &chain, &call, &Unlimited, &mut listener));
        tokio::select! {
            outcome = &mut running => panic!("it ended by itself: {outcome:?}"),
            _ = soon(simulator.wait_for_call(|call| call.ended_us.is_some())) => {}
        }
    }
    simulator.clear_script();
    assert_eq!(generate(&client, &[A], "after").await.end(), "completed");
    assert_eq!(simulator.calls_containing("stop me").len(), 1);
}

#[tokio::test]
async fn dropping_one_run_leaves_the_others_alone() {
    let simulator = Simulator::start().await;
    simulator.script("hold=3");
    let client = client(&simulator.base_url(), &[]);
    let (chain, doomed) = (models(&[A]), call("doomed"));
    let mut listener = Listener::default();
    let survivor = async { generate(&client, &[A], "survivor").await };
    let dropping = async {
        {
            let mut running = Box::pin(run(&client, &chain, &doomed, &Unlimited, &mut listener));
            tokio::select! {
                outcome = &mut running => panic!("it ended by itself: {outcome:?}"),
                () = soon(async {
                    for question in ["doomed", "survivor"] {
                        simulator.wait_for_call(|call| call.last_user_message == question && call.tokens_sent >= 3).await;
                    }
                }) => {}
            }
        }
        soon(simulator.wait_for_call(|call| call.outcome == Ended::Disconnected)).await;
        simulator.release();
    };
    let (ran, ()) = tokio::join!(survivor, dropping);
    assert_eq!(ran.answer().text, simulator.expected_reply("survivor"));
}
