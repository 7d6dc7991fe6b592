//! What a person may ask about: questions with the words that show that one was spoken of.

use super::data::{Interest, Trait};
use super::words;
use super::{AssessmentData, Language};

/// A question that may be suggested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) question: String,
    /// In lower case, in both languages: whoever writes one of them has covered the topic.
    covered_by: Vec<String>,
}

impl Topic {
    fn new(question: impl Into<String>, covered_by: &[&str]) -> Self {
        Self {
            question: question.into(),
            covered_by: covered_by.iter().map(|text| text.to_lowercase()).collect(),
        }
    }

    /// Whether one of these texts, in lower case, speaks of it.
    pub(super) fn is_covered(&self, said: &[String]) -> bool {
        let question = self.question.to_lowercase();
        said.iter().any(|text| {
            text.contains(&question) || self.covered_by.iter().any(|words| has_words(text, words))
        })
    }
}

/// Whether the text has these words, not as a part of longer ones.
fn has_words(text: &str, words: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(words).any(|(at, _)| {
        !letter(text[..at].chars().next_back()) && !letter(text[at + words.len()..].chars().next())
    })
}

/// The topics that the results themselves give, the most important first.
pub(super) fn of_results(data: &AssessmentData, language: Language) -> Vec<Topic> {
    let mut topics = Vec::new();
    for (interest, _) in data.interests().into_iter().take(2) {
        topics.push(of_interest(interest, language));
    }
    let traits = data.traits();
    if let Some((strongest, _)) = traits.first() {
        topics.push(of_strong_trait(*strongest, language));
    }
    if let Some((weakest, _)) = traits.last().filter(|_| traits.len() > 1) {
        topics.push(of_weak_trait(*weakest, language));
    }
    let strengths = data.strengths();
    let named =
        |(name, _): &(&str, f64)| Some(words::strength(name)).filter(|name| !name.is_empty());
    if let Some(name) = strengths.first().and_then(named) {
        let question = language.choose(
            format!("How can I make more of my strength “{name}” at work?"),
            format!(
                "Bagaimana saya bisa lebih memanfaatkan kekuatan saya “{name}” dalam pekerjaan?"
            ),
        );
        topics.push(Topic::new(question, &[&name]));
    }
    if let Some(name) = strengths
        .last()
        .filter(|_| strengths.len() > 1)
        .and_then(named)
    {
        let question = language.choose(
            format!("What could help me develop “{name}”?"),
            format!("Apa yang dapat membantu saya mengembangkan “{name}”?"),
        );
        topics.push(Topic::new(question, &[&name]));
    }
    topics
}

fn of_interest(interest: Interest, language: Language) -> Topic {
    let (english, indonesian): (&str, &str) = match interest {
        Interest::Realistic => (
            "Which hands-on or technical careers would suit me?",
            "Karier teknis atau praktik apa yang cocok untuk saya?",
        ),
        Interest::Investigative => (
            "Which careers would let me research and analyse?",
            "Karier apa yang memberi saya ruang untuk meneliti dan menganalisis?",
        ),
        Interest::Artistic => (
            "How could I build a career on my creativity?",
            "Bagaimana saya bisa membangun karier dari kreativitas saya?",
        ),
        Interest::Social => (
            "Which careers would let me help or teach people?",
            "Karier apa yang memungkinkan saya membantu atau mengajar orang lain?",
        ),
        Interest::Enterprising => (
            "Where could my wish to lead and to persuade take me?",
            "Ke mana keinginan saya untuk memimpin dan meyakinkan orang bisa membawa saya?",
        ),
        Interest::Conventional => (
            "Which careers reward my sense for order and detail?",
            "Karier apa yang menghargai ketelitian dan keteraturan saya?",
        ),
    };
    let words = words::interest(interest);
    Topic::new(
        language.choose(english, indonesian),
        &[words.english, words.indonesian],
    )
}

fn of_strong_trait(one: Trait, language: Language) -> Topic {
    let words = words::one_trait(one);
    let name = words.in_language(language);
    let question = language.choose(
        format!("What does my high score in {name} mean for my working life?"),
        format!("Apa arti skor {name} saya yang tinggi bagi kehidupan kerja saya?"),
    );
    Topic::new(question, &[words.english, words.indonesian])
}

fn of_weak_trait(one: Trait, language: Language) -> Topic {
    let words = words::one_trait(one);
    let name = words.in_language(language);
    if one == Trait::Neuroticism {
        // Little of it is what work asks for.
        let question = language.choose(
            "Where is my calm under pressure worth most at work?",
            "Di pekerjaan apa ketenangan saya di bawah tekanan paling berharga?",
        );
        return Topic::new(question, &[words.english, words.indonesian]);
    }
    let question = language.choose(
        format!("How do I handle work that asks for more {name} than I have?"),
        format!(
            "Bagaimana saya menghadapi pekerjaan yang menuntut {name} lebih dari yang saya miliki?"
        ),
    );
    Topic::new(question, &[words.english, words.indonesian])
}

/// Exploring careers, and developing.
pub(super) fn of_career(language: Language) -> Vec<Topic> {
    listed(
        language,
        &[
            (
                "Which career paths fit my results best?",
                "Jalur karier mana yang paling sesuai dengan hasil saya?",
                &["career path", "career paths", "jalur karier"],
            ),
            (
                "Which skills should I develop first?",
                "Keterampilan apa yang sebaiknya saya kembangkan lebih dulu?",
                &["skill", "skills", "keterampilan"],
            ),
        ],
    )
}

/// What takes the place of topics that were covered.
pub(super) fn others(language: Language) -> Vec<Topic> {
    listed(
        language,
        &[
            (
                "What kind of workplace would I feel at home in?",
                "Lingkungan kerja seperti apa yang cocok untuk saya?",
                &["workplace", "lingkungan kerja"],
            ),
            (
                "Which courses or fields of study should I look at?",
                "Kursus atau bidang studi apa yang sebaiknya saya lihat?",
                &[
                    "course",
                    "courses",
                    "field of study",
                    "kursus",
                    "bidang studi",
                    "jurusan",
                ],
            ),
            (
                "How can I try out a career before I decide?",
                "Bagaimana saya bisa mencoba suatu karier sebelum memutuskan?",
                &["try out", "internship", "magang"],
            ),
            (
                "How do I talk about my strengths in an interview?",
                "Bagaimana saya menceritakan kekuatan saya dalam wawancara?",
                &["interview", "wawancara"],
            ),
            (
                "What would a good plan for the next six months be?",
                "Seperti apa rencana yang baik untuk enam bulan ke depan?",
                &["six months", "enam bulan"],
            ),
            (
                "What do my results say about how I work with others?",
                "Apa kata hasil saya tentang cara saya bekerja sama dengan orang lain?",
                &["teamwork", "kerja sama"],
            ),
            (
                "What should I pay attention to in a first job?",
                "Apa yang perlu saya perhatikan dalam pekerjaan pertama?",
                &["first job", "pekerjaan pertama"],
            ),
            (
                "How do I find somebody who works in a field I like?",
                "Bagaimana saya menemukan orang yang bekerja di bidang yang saya sukai?",
                &["mentor", "network"],
            ),
        ],
    )
}

fn listed(language: Language, list: &[(&str, &str, &[&str])]) -> Vec<Topic> {
    let topics = list.iter().map(|(english, indonesian, covered_by)| {
        let mut topic = Topic::new(language.choose(*english, *indonesian), covered_by);
        // Whichever language it was asked in.
        topic
            .covered_by
            .extend([english.to_lowercase(), indonesian.to_lowercase()]);
        topic
    });
    topics.collect()
}
