//! What a run does with the answers of the fleet, whose part is played by a list.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use loadtest::simulator::Simulator;
use shared::models::Model;
use worker::upstream::{Admission, ErrorClass, Outcome, Referee};

use super::rig::{A, B, C, Ran, call, called, client, generate_by};

const LONG: Duration = Duration::from_secs(40);

/// Answers from a list, and with Go once that is over.
#[derive(Default)]
struct Listed {
    answers: Mutex<VecDeque<Admission>>,
    asked: Mutex<Vec<(String, bool)>>,
    worked: Mutex<Vec<String>>,
    failed: Mutex<Vec<(ErrorClass, Option<Duration>)>>,
}

impl Referee for Listed {
    async fn admit(&self, model: &Model, has_other: bool) -> Admission {
        let asked = (model.name.clone(), has_other);
        self.asked.lock().unwrap().push(asked);
        let answer = self.answers.lock().unwrap().pop_front();
        answer.unwrap_or(Admission::Go)
    }

    async fn worked(&self, model: &Model) {
        self.worked.lock().unwrap().push(model.name.clone());
    }

    async fn failed(&self, _: &Model, class: ErrorClass, wait: Option<Duration>) {
        self.failed.lock().unwrap().push((class, wait));
    }
}

async fn play(answers: &[Admission], chain: &[&str], script: &str) -> (Ran, Simulator, Listed) {
    let simulator = Simulator::start().await;
    if !script.is_empty() {
        simulator.script(script);
    }
    let client = client(&simulator.base_url(), &[]);
    let listed = Listed {
        answers: Mutex::new(answers.iter().copied().collect()),
        ..Listed::default()
    };
    let ran = generate_by(&client, chain, &call("hello"), &listed).await;
    (ran, simulator, listed)
}

#[tokio::test]
async fn a_short_wait_is_kept_in_the_claim_and_asked_about_again() {
    let wait = Admission::Wait {
        wait: Duration::from_millis(50),
        ahead: 1,
    };
    let (ran, simulator, listed) = play(&[wait, wait], &[A], "").await;
    assert_eq!(ran.end(), "completed");
    assert_eq!(called(&simulator), "a");
    assert_eq!(listed.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_long_wait_frees_the_worker_and_nothing_is_called() {
    let wait = Admission::Wait {
        wait: LONG,
        ahead: 7,
    };
    let (ran, simulator, _) = play(&[wait], &[A, B, C], "").await;
    assert_eq!(ran.end(), "paced 40");
    assert!(simulator.calls().is_empty());
    assert_eq!(ran.listener.retried(), 0, "no text is void");
}

#[tokio::test]
async fn too_long_a_wait_goes_to_a_model_with_another_limit() {
    let (ran, simulator, listed) = play(&[Admission::TooLong(LONG)], &[A, B, C], "").await;
    assert_eq!(ran.end(), "completed");
    assert_eq!(
        called(&simulator),
        "c",
        "the next free one shares the limit"
    );
    let asked = listed.asked.lock().unwrap().clone();
    let expected = [(A, true), (C, false)].map(|(name, other)| (name.to_owned(), other));
    assert_eq!(asked, expected);
    let (ran, simulator, _) = play(&[Admission::TooLong(LONG)], &[A, B], "").await;
    assert_eq!(ran.end(), "paced 40", "there is none");
    assert!(simulator.calls().is_empty());
}

#[tokio::test]
async fn when_the_other_model_fails_it_waits_for_the_limited_one() {
    let answers = [Admission::TooLong(LONG)];
    let (ran, simulator, _) = play(&answers, &[A, C], "404").await;
    assert_eq!(called(&simulator), "c");
    assert_eq!(ran.end(), "put back 40");
}

#[tokio::test]
async fn a_turn_that_comes_after_the_deadline_is_not_waited_for() {
    let simulator = Simulator::start().await;
    let client = client(&simulator.base_url(), &[]);
    let wait = Admission::Wait {
        wait: LONG,
        ahead: 0,
    };
    let listed = Listed {
        answers: Mutex::new([wait].into()),
        ..Listed::default()
    };
    let mut call = call("hello");
    call.time_left = LONG - Duration::from_secs(1);
    let ran = generate_by(&client, &[A], &call, &listed).await;
    assert_eq!(ran.end(), "upstream_exhausted");
}

#[tokio::test]
async fn the_fleet_hears_of_every_end() {
    let (ran, _, listed) = play(&[], &[A, C], "model=*:free,429,reset=60").await;
    assert_eq!(ran.end(), "completed");
    let refused = listed.failed.lock().unwrap().clone();
    let [(ErrorClass::PlatformLimit, Some(wait))] = refused[..] else {
        panic!("{refused:?}");
    };
    assert_eq!(*listed.worked.lock().unwrap(), [C]);
    assert!((50.0..=60.0).contains(&wait.as_secs_f64()), "{wait:?}");
}

#[tokio::test]
async fn a_model_that_rests_is_skipped_and_nothing_is_given_up_for_it() {
    let resting = Admission::Resting(LONG);
    let (ran, simulator, _) = play(&[resting], &[A, B, C], "").await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("completed", "b")
    );
    // The one that is left does not exist; the one that rests may answer one day.
    let (ran, simulator, _) = play(&[resting], &[A, B], "404").await;
    assert_eq!(
        (ran.end().as_str(), called(&simulator).as_str()),
        ("again", "b")
    );
    let (ran, simulator, _) = play(&[resting, resting], &[A, B], "").await;
    let Outcome::Again { after, .. } = ran.outcome else {
        panic!("{:?}", ran.outcome);
    };
    assert!(after >= LONG && simulator.calls().is_empty(), "{after:?}");
}
