//! The first message of a conversation about an assessment.

use shared::domain::assessment::{AssessmentData, Language, suggestions};

use super::{assessment, indonesian, system};
use crate::upstream::{ChatMessage, ChatRole};

/// What a welcome is made from.
#[derive(Clone, Copy, Debug)]
pub struct WelcomeInput<'a> {
    /// The results; empty where they cannot be had.
    pub data: &'a AssessmentData,
    /// The person's language.
    pub language: Language,
    /// What the person is called.
    pub name: Option<&'a str>,
}

const TASK: &str = "\
Write the first message of the conversation, in English. Greet the person (by name, if you are given one) and thank \
them for finishing the assessment. Name two or three insights that follow from their highest scores, each with the name \
of the scale and its score, in everyday words. End with three short questions they could answer or ask next. \
Use at most 180 words. Do not mention scores that you were not given; when there are none, say that the details will \
follow and ask the three questions.";
const TASK_INDONESIAN: &str = "\
Tulis pesan pertama percakapan ini dalam bahasa Indonesia. Sapa orang tersebut (dengan nama, bila diberikan) dan \
ucapkan terima kasih karena telah menyelesaikan asesmen. Sebutkan dua atau tiga wawasan yang mengikuti dari skor \
tertingginya, masing-masing dengan nama skala dan skornya, dengan kata sehari-hari. Akhiri dengan tiga pertanyaan \
singkat yang dapat ia jawab atau ajukan. Paling banyak 180 kata. Jangan menyebut skor yang tidak diberikan; bila tidak \
ada, katakan bahwa rinciannya menyusul dan ajukan tiga pertanyaan itu.";

/// The messages that ask for it.
#[must_use]
pub fn build_welcome(input: &WelcomeInput<'_>) -> Vec<ChatMessage> {
    let language = input.language;
    let (role, rules, introduction) = match language {
        Language::English => (
            system::ASSESSMENT,
            system::HOUSE_RULES,
            system::BACKGROUND_BEGIN,
        ),
        Language::Indonesian => (
            indonesian::ASSESSMENT,
            indonesian::HOUSE_RULES,
            indonesian::BACKGROUND_BEGIN,
        ),
    };
    let mut prompt = format!("{role}\n\n{rules}");
    let mut facts: Vec<String> = Vec::new();
    facts.extend(input.name.map(|name| format!("Name: {name}")));
    facts.extend(assessment::results(input.data));
    let questions = suggestions(input.data, language, &[]);
    facts.push(format!("Questions that fit: {}", questions.join(" ")));
    system::add_background(&mut prompt, introduction, Some(&facts.join("\n\n")));
    vec![
        ChatMessage::text(ChatRole::System, prompt),
        ChatMessage::text(ChatRole::User, language.choose(TASK, TASK_INDONESIAN)),
    ]
}
