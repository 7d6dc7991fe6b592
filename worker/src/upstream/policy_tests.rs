//! The second half of upstream.md's table, row by row: what a run does with an error that does not
//! go away.

use std::time::Duration;

use super::super::hints::Hints;
use super::*;

const FREE_A: &str = "a:free";
const FREE_B: &str = "b:free";
const PAID: &str = "c";

fn chain() -> Vec<Model> {
    [FREE_A, FREE_B, PAID]
        .map(|name| Model::new(name.to_owned(), name.ends_with(":free")))
        .to_vec()
}

fn error(class: ErrorClass) -> CallError {
    CallError::of(class, "test")
}

fn told(class: ErrorClass, seconds: u64) -> CallError {
    let hints = Hints {
        retry_after: Some(Duration::from_secs(seconds)),
        reset: None,
    };
    CallError {
        hints,
        ..error(class)
    }
}

/// What a run does when every call fails alike: one word per step.
fn walk(chain: &[Model], failure: &CallError, mut keys: usize, can_shorten: bool) -> String {
    let mut plan = Plan::new(chain);
    let mut steps = Vec::new();
    let mut shortened = false;
    for _ in 0..20 {
        keys = keys.saturating_sub(usize::from(
            policy(failure.class).same == SameModel::OtherKey,
        ));
        match plan.after(failure, |_| keys > 0, can_shorten && !shortened) {
            Step::Call { at, delay, shorter } => {
                shortened = shorter;
                let told = failure.hints.wait().unwrap_or(MAX_IN_CLAIM);
                assert!(delay <= told.mul_f64(1.1), "{delay:?}");
                let pause = if delay.is_zero() { "" } else { "~" };
                let cut = if shorter { "-" } else { "" };
                steps.push(format!("{pause}{}{cut}", chain[at].name));
            }
            Step::PutBack(wait) => {
                steps.push(format!("put back {}", wait.as_secs() / 10 * 10));
                return steps.join(", ");
            }
            Step::Again => {
                steps.push("again".to_owned());
                return steps.join(", ");
            }
            Step::GiveUp(code) => {
                steps.push(code.to_string());
                return steps.join(", ");
            }
        }
    }
    panic!("the run does not end: {steps:?}");
}

#[test]
fn each_row_does_what_the_table_says() {
    use ErrorClass::*;
    let all = chain();
    for (class, expected) in [
        (InvalidRequest, "upstream_rejected"),
        (UnknownModel, "b:free, c, upstream_exhausted"),
        (
            ContextLength,
            "a:free-, b:free, b:free-, c, c-, context_too_long",
        ),
        (ContentPolicy, "content_refused"),
        (KeyRefused, "a:free, upstream_unauthorised"),
        (PaymentRequired, "a:free, upstream_unauthorised"),
        (InFlightBudget, "~a:free, put back 10"),
        (NoEndpoint, "b:free, c, upstream_exhausted"),
        (ServerError, "~a:free, b:free, ~b:free, c, ~c, again"),
        (PlatformLimit, "~a:free, c, ~c, put back 10"),
        (Capacity, "~a:free, b:free, ~b:free, c, ~c, put back 10"),
        (Unavailable, "b:free, c, again"),
        (EmptyAnswer, "~a:free, b:free, ~b:free, c, ~c, again"),
        (Connection, "~a:free, b:free, ~b:free, c, ~c, again"),
        (Malformed, "~a:free, b:free, ~b:free, c, ~c, again"),
        (Timeout, "b:free, c, again"),
    ] {
        assert_eq!(walk(&all, &error(class), 2, true), expected, "{class}");
    }
}

#[test]
fn a_short_wait_is_kept_in_the_claim_and_a_long_one_frees_the_worker() {
    use ErrorClass::*;
    let all = chain();
    for (class, seconds, expected) in [
        (InFlightBudget, 1, "~a:free, put back 0"),
        (InFlightBudget, 30, "put back 30"),
        (PlatformLimit, 1, "~a:free, c, ~c, put back 0"),
        (PlatformLimit, 60, "c, put back 60"),
        (PlatformLimit, 3600, "c, upstream_exhausted"),
        (Capacity, 60, "b:free, c, put back 60"),
        (ServerError, 60, "b:free, c, put back 60"),
        (Unavailable, 60, "b:free, c, put back 60"),
        (Timeout, 60, "b:free, c, again"),
    ] {
        assert_eq!(
            walk(&all, &told(class, seconds), 1, true),
            expected,
            "{class} {seconds}"
        );
    }
    let free_only = &all[..2];
    assert_eq!(
        walk(free_only, &told(PlatformLimit, 60), 1, true),
        "put back 60"
    );
}

#[test]
fn an_unavailable_provider_is_asked_again_only_if_it_says_so() {
    let failure = |retryable| CallError {
        retryable,
        ..error(ErrorClass::Unavailable)
    };
    let model = &chain()[..1];
    assert_eq!(walk(model, &failure(Some(true)), 1, true), "~a:free, again");
    assert_eq!(walk(model, &failure(Some(false)), 1, true), "again");
    assert_eq!(walk(model, &failure(None), 1, true), "again");
    let gone = CallError {
        retryable: Some(false),
        ..told(ErrorClass::Unavailable, 60)
    };
    assert_eq!(walk(model, &gone, 1, true), "again");
}

#[test]
fn without_credit_a_free_model_answers() {
    let chain: Vec<Model> = chain().into_iter().rev().collect();
    let mut plan = Plan::new(&chain);
    let step = plan.after(
        &error(ErrorClass::PaymentRequired),
        |model| model.free,
        true,
    );
    assert_eq!(
        step,
        Step::Call {
            at: 1,
            delay: Duration::ZERO,
            shorter: false
        }
    );
    assert_eq!(plan.model().map(|model| model.name.as_str()), Some(FREE_B));
}

#[test]
fn the_soonest_promise_of_an_earlier_model_outlives_a_later_failure() {
    let chain = chain();
    let mut plan = Plan::new(&chain);
    for failure in [
        told(ErrorClass::Capacity, 40),
        told(ErrorClass::Capacity, 90),
    ] {
        assert!(matches!(
            plan.after(&failure, |_| true, true),
            Step::Call { .. }
        ));
    }
    let Step::PutBack(wait) = plan.after(&error(ErrorClass::NoEndpoint), |_| true, true) else {
        panic!("a model will be back in 40 s");
    };
    assert!((40.0..=44.0).contains(&wait.as_secs_f64()), "{wait:?}");
}

#[test]
fn a_prompt_with_nothing_left_to_cut_goes_to_the_next_model() {
    assert_eq!(
        walk(&chain(), &error(ErrorClass::ContextLength), 1, false),
        "b:free, c, context_too_long"
    );
}

#[test]
fn every_class_has_a_row_and_every_run_ends() {
    for class in ErrorClass::ALL {
        for keys in 0..3 {
            for seconds in [0, 1, 5, 700] {
                walk(&chain(), &told(*class, seconds), keys, true);
                walk(&chain()[..1], &told(*class, seconds), keys, false);
            }
        }
    }
}
