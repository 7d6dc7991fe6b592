//! Texts that need no model: the welcome when every model fails, and the note that results changed.

use std::fmt::Write as _;

use super::truth::has_false_score;
use super::words;
use super::{AssessmentData, Language, suggestions};

/// Questions that a welcome asks.
const QUESTIONS: usize = 3;
/// Insights that it names at least.
const INSIGHTS: usize = 2;

/// The title of a conversation that is prepared from an assessment.
#[must_use]
pub fn default_title(language: Language) -> &'static str {
    language.choose("Your career assessment", "Asesmen karier Anda")
}

/// The note in a conversation whose results changed.
#[must_use]
pub fn updated_note(data: &AssessmentData, language: Language) -> String {
    let summary = data.summary();
    let note = language.choose(
        "Your assessment results were added to this conversation.",
        "Hasil asesmen Anda telah ditambahkan ke percakapan ini.",
    );
    if summary.is_empty() {
        note.to_owned()
    } else {
        format!("{note} {summary}.")
    }
}

/// A welcome made of the scores alone: two or three insights that are true of them, and three
/// questions. `name` is what the person is called.
#[must_use]
pub fn composed_welcome(data: &AssessmentData, language: Language, name: Option<&str>) -> String {
    let mut text = match (language, name) {
        (Language::English, Some(name)) => format!("Hello {name}! "),
        (Language::English, None) => "Hello! ".to_owned(),
        (Language::Indonesian, Some(name)) => format!("Halo {name}! "),
        (Language::Indonesian, None) => "Halo! ".to_owned(),
    };
    let insights = insights(data, language);
    text.push_str(match (language, insights.is_empty()) {
        (Language::English, false) => {
            "Thank you for finishing your career assessment. This is what stands out in your results:\n"
        }
        (Language::Indonesian, false) => {
            "Terima kasih telah menyelesaikan asesmen karier Anda. Inilah yang menonjol dari hasil Anda:\n"
        }
        (Language::English, true) => {
            "Thank you for finishing your career assessment. Your detailed scores are not at hand right \
             now, but we can begin to talk about where you want to go.\n"
        }
        (Language::Indonesian, true) => {
            "Terima kasih telah menyelesaikan asesmen karier Anda. Rincian skor Anda belum tersedia saat \
             ini, tetapi kita sudah bisa mulai membicarakan arah yang Anda inginkan.\n"
        }
    });
    for insight in insights {
        let _ = write!(text, "\n- {insight}");
    }
    text.push_str(language.choose(
        "\n\nWhat would you like to talk about first?\n",
        "\n\nApa yang ingin Anda bicarakan lebih dulu?\n",
    ));
    let questions = suggestions(data, language, &[]);
    for (number, question) in questions.iter().take(QUESTIONS).enumerate() {
        let _ = write!(text, "\n{}. {question}", number + 1);
    }
    text
}

/// A model's welcome with what it left out: two insights at least where the results give any, and
/// three questions. None where it tells scores that the person does not have.
#[must_use]
pub fn finished_welcome(text: &str, data: &AssessmentData, language: Language) -> Option<String> {
    if has_false_score(text, data) {
        return None;
    }
    let mut text = text.trim().to_owned();
    let named = |word: &str| !word.is_empty() && text.to_lowercase().contains(&word.to_lowercase());
    let interest = data
        .interests()
        .first()
        .map(|(one, _)| words::interest(*one));
    let one_trait = data.traits().first().map(|(one, _)| words::one_trait(*one));
    let strength = data
        .strengths()
        .first()
        .map(|(name, _)| words::strength(name));
    let in_either = |word: words::Word| named(word.english) || named(word.indonesian);
    let is_named = [
        interest.is_some_and(in_either),
        one_trait.is_some_and(in_either),
        strength.is_some_and(|name| named(&name)),
    ];
    let insights = insights(data, language);
    if is_named.iter().filter(|named| **named).count() < insights.len().min(INSIGHTS) {
        text.push_str(language.choose(
            "\n\nWhat stands out in your results:\n",
            "\n\nYang menonjol dari hasil Anda:\n",
        ));
        for insight in insights {
            let _ = write!(text, "\n- {insight}");
        }
    }
    let asked = text.matches(['?', '？']).count();
    if asked < QUESTIONS {
        text.push_str(language.choose(
            "\n\nSome questions to begin with:\n",
            "\n\nBeberapa pertanyaan untuk memulai:\n",
        ));
        for (number, question) in suggestions(data, language, &[])
            .iter()
            .take(QUESTIONS)
            .enumerate()
        {
            let _ = write!(text, "\n{}. {question}", number + 1);
        }
    }
    Some(text)
}

fn insights(data: &AssessmentData, language: Language) -> Vec<String> {
    let mut insights = Vec::new();
    if let Some((first, score)) = data.interests().first().copied() {
        let name = words::interest(first).in_language(language);
        let likes = words::likes(first).in_language(language);
        let score = score.round();
        insights.push(language.choose(
            format!("Your strongest interest is {name} ({score}): you like to {likes}."),
            format!("Minat terkuat Anda adalah {name} ({score}): Anda senang {likes}."),
        ));
    }
    if let Some((first, score)) = data.traits().first().copied() {
        let name = words::one_trait(first).in_language(language);
        let tends = words::tends(first).in_language(language);
        let score = score.round();
        insights.push(language.choose(
            format!("Of the Big Five traits your highest is {name} ({score}). People who score high in it {tends}."),
            format!("Dari kelima sifat Big Five, yang tertinggi pada Anda adalah {name} ({score}). Orang dengan skor tinggi biasanya {tends}."),
        ));
    }
    if let Some((first, score)) = data.strengths().first().copied() {
        let (name, score) = (words::strength(first), score.round());
        insights.push(language.choose(
            format!("Among your character strengths “{name}” comes first ({score})."),
            format!(
                "Di antara kekuatan karakter Anda, “{name}” berada di urutan pertama ({score})."
            ),
        ));
    }
    insights
}
