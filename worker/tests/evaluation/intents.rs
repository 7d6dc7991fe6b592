//! How well a message is judged: docs/evaluation/intents.tsv, written by hand and synthetic like the rest. Odd
//! lines are held out. [`crate::by_model`] measures a model beside the patterns.

use shared::desk::{Judge, Patterns};

const MESSAGES: &str = include_str!("../../../docs/evaluation/intents.tsv");

/// From where on a mood is more than neutral.
const MOOD: f64 = 0.25;

/// What became of half the messages.
#[derive(Default)]
pub(crate) struct Half {
    pub(crate) all: u32,
    pub(crate) intent: u32,
    pub(crate) mood: u32,
}

pub(crate) fn share(right: u32, half: &Half) -> f64 {
    f64::from(right) / f64::from(half.all)
}

/// The development half and the one that is held out.
pub(crate) async fn judged(judge: &impl Judge) -> [Half; 2] {
    let mut halves = [Half::default(), Half::default()];
    for (number, line) in MESSAGES.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [intent, mood, text] = fields[..] else {
            panic!("three fields: {line}");
        };
        let said = judge.judge(text).await;
        let felt = match said.sentiment {
            low if low <= -MOOD => "-",
            high if high >= MOOD => "+",
            _ => "0",
        };
        let is_dev = number % 2 == 1;
        let half = &mut halves[usize::from(!is_dev)];
        half.all += 1;
        half.intent += u32::from(said.intent.as_str() == intent);
        half.mood += u32::from(felt == mood);
        if is_dev && (said.intent.as_str() != intent || felt != mood) {
            println!(
                "dev miss: {intent} {mood} {text}: {} {felt}",
                said.intent.as_str()
            );
        }
    }
    halves
}

#[tokio::test]
async fn the_patterns_judge_most_messages_as_a_person_does() {
    let halves = judged(&Patterns).await;
    for (name, half) in ["dev", "test"].iter().zip(&halves) {
        println!(
            "{name}: {} messages, intent {:.2}, mood {:.2}",
            half.all,
            share(half.intent, half),
            share(half.mood, half)
        );
    }
    let held_out = &halves[1];
    assert!(share(held_out.intent, held_out) >= INTENT, "intent");
    assert!(share(held_out.mood, held_out) >= MOODS, "mood");
}

/// What the patterns reached when the set was written, less a message or two: a change that loses more shows.
const INTENT: f64 = 0.70;
const MOODS: f64 = 0.70;
