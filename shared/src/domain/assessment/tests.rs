use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

fn example() -> Value {
    json!({
        "riasec": { "R": 85, "I": 92, "A": 78, "S": 60, "E": 41.4, "C": 55 },
        "ocean": { "O": 88, "C": 75, "E": 82, "A": 70, "N": 30 },
        "viaIs": { "curiosity": 95, "love_of_learning": 90, "prudence": 21 },
        "personaProfile": { "summary": "The person is a curious builder and likes to learn.", "role": "engineer" },
        "assessmentDate": "2026-11-01T08:00:00Z",
    })
}

fn read(value: &Value) -> AssessmentData {
    AssessmentData::read(value).unwrap()
}

#[test]
fn the_summary_names_top_scores_first() {
    assert_eq!(
        read(&example()).summary(),
        "RIASEC (I: 92, R: 85, A: 78), Big Five (O: 88, E: 82, C: 75), Career profile: available"
    );
    let partial = json!({ "riasec": { "S": 50, "E": 50, "R": 49.5 } });
    assert_eq!(
        read(&partial).summary(),
        "RIASEC (S: 50, E: 50, R: 50), Career profile: not available"
    );
    assert_eq!(read(&json!({})).summary(), "");
}

#[test]
fn what_is_read_is_written_alike() {
    let data = read(&example());
    let written = serde_json::to_value(&data).unwrap();
    assert_eq!(written["riasec"]["I"], 92.0);
    assert_eq!(written["viaIs"]["curiosity"], 95.0);
    assert_eq!(written["assessmentDate"], "2026-11-01T08:00:00.000Z");
    assert_eq!(read(&written), data);
    assert_eq!(
        serde_json::from_value::<AssessmentData>(written).unwrap(),
        data
    );
}

#[test]
fn quirks_of_publishers_are_understood() {
    let odd = json!({
        "riasec": { "realistic": 10, "i": 20, "X": 900, "A": null },
        "via_is": { "  hope ": 5 },
        "persona_profile": "Just a text",
        "assessment_date": "2026-11-01",
        "unknown": [1, 2],
        "ocean": null,
    });
    let data = read(&odd);
    assert_eq!(data.riasec.len(), 2);
    assert_eq!(data.riasec[&Interest::Realistic], 10.0);
    assert_eq!(data.via_is.keys().collect::<Vec<_>>(), ["hope"]);
    assert_eq!(data.persona_summary(), Some("Just a text"));
    assert!(data.assessment_date.is_some() && data.ocean.is_empty());
}

#[test]
fn everything_that_is_wrong_is_named() {
    let wrong = json!({
        "riasec": { "R": 100.1, "I": -1, "S": "90" },
        "ocean": [1],
        "viaIs": { "hope": true },
        "personaProfile": 5,
        "assessmentDate": "yesterday",
    });
    let named: HashSet<String> = AssessmentData::read(&wrong)
        .unwrap_err()
        .into_iter()
        .map(|wrong| wrong.field)
        .collect();
    let expected = [
        "riasec.R",
        "riasec.I",
        "riasec.S",
        "ocean",
        "viaIs.hope",
        "personaProfile",
        "assessmentDate",
    ];
    assert_eq!(named, expected.map(str::to_owned).into());
    assert_eq!(
        AssessmentData::read(&json!("x")).unwrap_err()[0].field,
        "results"
    );
}

#[test]
fn a_megabyte_of_persona_is_bounded_and_keeps_its_summary() {
    let long = "kata ".repeat(200_000);
    let mut profile = json!({ "a": long, "b": [long, long], "summary": "short", "nul": "a\0b" });
    for at in 0..500 {
        profile[format!("more{at}")] = json!({ "deep": { "deeper": [[[[[["x"]]]]]] } });
    }
    let data = read(&json!({ "personaProfile": profile }));
    let size = serde_json::to_string(&data.persona_profile).unwrap().len();
    assert!(size < MAX_PERSONA_BYTES * 2, "{size}");
    assert_eq!(data.persona_summary(), Some("short"));
    assert!(!serde_json::to_string(&data).unwrap().contains("\\u0000"));
}

#[test]
fn suggestions_speak_of_the_results_and_make_room_for_new_ones() {
    let data = read(&example());
    let first = suggestions(&data, Language::English, &[]);
    insta::assert_snapshot!(first.join("\n"), @r"
    Which careers would let me research and analyse?
    Which hands-on or technical careers would suit me?
    What does my high score in openness mean for my working life?
    Where is my calm under pressure worth most at work?
    How can I make more of my strength “curiosity” at work?
    What could help me develop “prudence”?
    Which career paths fit my results best?
    Which skills should I develop first?
    ");
    let asked = "Tell me about my openness, please. And which SKILLS matter?";
    let then = suggestions(&data, Language::English, &[asked, &first[0]]);
    assert_eq!(then.len(), 8);
    for gone in [&first[0], &first[2], &first[7]] {
        assert!(!then.contains(gone), "{gone}");
    }
    assert_eq!(then[0], first[1]);
    // “skillset” is no mention of skills.
    let unasked = suggestions(&data, Language::English, &["my skillset"]);
    assert_eq!(unasked, first);
}

#[test]
fn the_composed_welcome_is_true_of_the_scores() {
    let data = read(&example());
    let welcome = composed_welcome(&data, Language::English, Some("Ayu"));
    insta::assert_snapshot!(welcome, @r"
    Hello Ayu! Thank you for finishing your career assessment. This is what stands out in your results:

    - Your strongest interest is Investigative (92): you like to get to the bottom of questions and work with facts and ideas.
    - Of the Big Five traits your highest is openness (88). People who score high in it are curious and enjoy new ideas.
    - Among your character strengths “curiosity” comes first (95).

    What would you like to talk about first?

    1. Which careers would let me research and analyse?
    2. Which hands-on or technical careers would suit me?
    3. What does my high score in openness mean for my working life?
    ");
    let welcome = composed_welcome(&data, Language::Indonesian, None);
    assert!(welcome.starts_with("Halo! Terima kasih") && welcome.contains("Investigatif (92)"));
    let empty = composed_welcome(&AssessmentData::default(), Language::English, None);
    assert!(
        !empty.contains("\n- ") && empty.matches("\n3. ").count() == 1,
        "{empty}"
    );
}

#[test]
fn a_models_welcome_gets_what_it_left_out_and_nothing_else() {
    let data = read(&example());
    let whole = "You are Investigative (92) and high in openness. One? Two? Three?";
    let finished = |text, data: &AssessmentData| finished_welcome(text, data, Language::English);
    assert_eq!(finished(whole, &data).as_deref(), Some(whole));
    let poor = finished(" Hi there. ", &data).unwrap();
    assert!(poor.starts_with("Hi there.\n\nWhat stands out"), "{poor}");
    assert!(
        poor.contains("Investigative (92)") && poor.contains("\n3. "),
        "{poor}"
    );
    let unknown = finished("Hi? Hi? Hi?", &AssessmentData::default());
    assert_eq!(unknown.as_deref(), Some("Hi? Hi? Hi?"));
    assert_eq!(finished("You are Investigative (29).", &data), None);
}

#[test]
fn languages_are_told_apart() {
    for (text, language) in [
        (
            "Bagaimana saya bisa memilih karier yang cocok?",
            Some(Language::Indonesian),
        ),
        ("What should I do with my results?", Some(Language::English)),
        ("halo", Some(Language::Indonesian)),
        ("1234 !!", None),
        ("", None),
    ] {
        assert_eq!(Language::detect(text), language, "{text}");
    }
    assert_eq!(Language::of_tag("id-ID"), Some(Language::Indonesian));
    assert_eq!(Language::of_tag("en_US"), Some(Language::English));
    assert_eq!(Language::of_tag("de"), None);
}

#[test]
fn a_stage_is_told_in_the_documented_shape() {
    let at = time::macros::datetime!(2026-11-01 08:00 UTC);
    let notice = StageNotice::new(Stage::Complete, Uuid::nil(), Language::English, at);
    assert_eq!(
        serde_json::to_value(&notice).unwrap(),
        json!({
            "title": "Your results are ready",
            "message": "Your results are there. A conversation about them is being prepared.",
            "progress": 75,
            "stage": "analysis_complete",
            "assessmentId": Uuid::nil(),
            "timestamp": "2026-11-01T08:00:00.000Z",
            "action": { "type": "redirect", "url": format!("/assessment/{}/results", Uuid::nil()) },
        })
    );
}

prop_compose! {
    fn any_data()(
        riasec in prop::collection::btree_map(prop::sample::select(Interest::ALL), 0.0..=100.0_f64, 0..=6),
        ocean in prop::collection::btree_map(prop::sample::select(Trait::ALL), 0.0..=100.0_f64, 0..=5),
        via_is in prop::collection::btree_map("[ -~]{1,20}", 0.0..=100.0_f64, 0..6),
    ) -> AssessmentData {
        AssessmentData { riasec, ocean, via_is, ..AssessmentData::default() }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let keys = prop_oneof![
        prop::sample::select(
            &[
                "riasec",
                "ocean",
                "viaIs",
                "personaProfile",
                "R",
                "O",
                "summary"
            ][..]
        )
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(keys.clone(), inner, 0..6)
                .prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn suggestions_are_six_to_eight_none_twice_and_stable(
        data in any_data(),
        english in any::<bool>(),
        said in prop::collection::vec(".{0,40}", 0..6),
        covered in prop::collection::vec(0..16_usize, 0..16),
    ) {
        let language = if english { Language::English } else { Language::Indonesian };
        // What was suggested is asked, again and again: there is always something to suggest.
        let mut said = said;
        for at in covered {
            let texts: Vec<&str> = said.iter().map(String::as_str).collect();
            let all = suggestions(&data, language, &texts);
            prop_assert!((MIN_SUGGESTIONS..=MAX_SUGGESTIONS).contains(&all.len()), "{all:?}");
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
            prop_assert_eq!(&suggestions(&data, language, &texts), &all);
            said.push(all[at % all.len()].clone());
        }
    }

    #[test]
    fn a_welcome_always_asks_three_questions_and_names_true_scores(data in any_data(), english in any::<bool>()) {
        let language = if english { Language::English } else { Language::Indonesian };
        let welcome = composed_welcome(&data, language, None);
        let questions = welcome.lines().filter(|line| line.starts_with(['1', '2', '3'])).count();
        prop_assert_eq!(questions, 3);
        if let Some((_, best)) = data.interests().first() {
            let score = format!("({})", best.round());
            prop_assert!(welcome.contains(&score), "{welcome}");
        }
        prop_assert!(data.summary().len() < 200);
    }

    #[test]
    fn whatever_is_read_is_in_bounds_and_reads_again(value in any_json()) {
        let Ok(data) = AssessmentData::read(&value) else { return Ok(()) };
        for score in data.riasec.values().chain(data.ocean.values()).chain(data.via_is.values()) {
            prop_assert!((0.0..=100.0).contains(score));
        }
        let written = serde_json::to_value(&data).unwrap();
        let again = AssessmentData::read(&written);
        prop_assert_eq!(again.as_ref(), Ok(&data));
    }
}

#[test]
fn the_language_that_is_liked_best_is_taken_of_those_that_are_spoken() {
    for (header, language) in [
        ("id-ID,id;q=0.9,en;q=0.8", Some(Language::Indonesian)),
        ("fr, en-GB;q=0.7, id;q=0.3", Some(Language::English)),
        ("en;q=0.2, in;q=0.9", Some(Language::Indonesian)),
        ("id;q=0, en;q=0.1", Some(Language::English)),
        ("fr-FR, *;q=0.5", None),
        ("", None),
        (";;q=x,,", None),
    ] {
        assert_eq!(Language::accepted(header), language, "{header}");
    }
}
