//! Who has the same name, and what is left behind.

use loadtest::simulator::Outcome;
use shared::domain::{FailureCode, GenerationStatus};

use crate::process::Process;
use crate::{Fleet, LONG};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_goes_on_where_it_was_once_it_is_back() {
    let fleet = Fleet::new().await;
    let worker = Process::start(&fleet, "w1", &[LONG]);
    let ids = fleet.held(5).await;
    worker.kill();
    // Waiting for the leases would hang.
    let _next = Process::start(&fleet, "w1", &[LONG]);
    for generation in fleet.all_ended(&ids).await {
        assert_eq!(generation.attempts, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_living_workers_of_one_name_leave_each_others_work_alone() {
    let fleet = Fleet::new().await;
    // Whoever lives has an hour to say so, however busy the machine is.
    let settings = [LONG, ("ROLL_CALL_SECONDS", "3600")];
    let mut first = Process::start(&fleet, "twin", &settings);
    let ids = fleet.held(3).await;
    let mut second = Process::start(&fleet, "twin", &settings);
    second
        .says(&fleet, "another worker of this name lives")
        .await;
    // A crash loop of the one does not disturb the other.
    second.kill();
    second = Process::start(&fleet, "twin", &settings);
    second
        .says(&fleet, "another worker of this name lives")
        .await;
    assert!(first.runs() && second.runs());
    let attempts = "SELECT max(attempt) FROM chat.generations WHERE kind = 'reply'";
    assert_eq!(fleet.env.value(attempts).await.unwrap(), "1");
    fleet.simulator.release();
    fleet.all_ended(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_kills_its_worker_each_time_is_given_up_and_its_neighbours_are_not() {
    let fleet = Fleet::new().await;
    let settings = [("ROLL_CALL_SECONDS", "0.5"), ("LEASE_SECONDS", "3")];
    let mut worker = Some(Process::start(&fleet, "w1", &settings));
    let mut neighbours = Vec::new();
    let conversation = fleet.conversation().await;
    let poison = fleet
        .send(conversation, "poison [[sim:hold=0,processing=1000]]")
        .await;
    fleet
        .env
        .execute("UPDATE chat.generations SET max_attempts = 3")
        .await;
    for number in 0..4 {
        let conversation = fleet.conversation().await;
        let question = format!("Neighbour {number}. [[sim:rate=30]] [[sim:tokens=60]]");
        neighbours.push(fleet.send(conversation, &question).await.id);
    }
    let mut deaths = 0;
    let ended = fleet
        .until(async || {
            let calls = fleet.simulator.calls_containing("poison");
            if calls.len() > deaths && calls.iter().any(|call| call.outcome == Outcome::InProgress)
            {
                deaths = calls.len();
                drop(worker.take());
                worker = Some(Process::start(&fleet, "w1", &settings));
            }
            let generation = fleet.generation(poison.id).await;
            generation.status.is_terminal().then_some(generation)
        })
        .await;
    assert_eq!(ended.status, GenerationStatus::Failed);
    assert_eq!(ended.error.unwrap().code, FailureCode::AttemptsExhausted);
    assert_eq!((ended.attempts, deaths), (3, 3));
    fleet.all_ended(&neighbours).await;
}
