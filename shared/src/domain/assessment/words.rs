//! What scales are called, and what a high score means, in both languages.

use super::Language;
use super::data::{Interest, Trait};

/// A word in both languages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) english: &'static str,
    pub(super) indonesian: &'static str,
}

impl Word {
    pub(super) fn in_language(self, language: Language) -> &'static str {
        language.choose(self.english, self.indonesian)
    }
}

const fn word(english: &'static str, indonesian: &'static str) -> Word {
    Word {
        english,
        indonesian,
    }
}

pub(super) const fn interest(interest: Interest) -> Word {
    match interest {
        Interest::Realistic => word("Realistic", "Realistik"),
        Interest::Investigative => word("Investigative", "Investigatif"),
        Interest::Artistic => word("Artistic", "Artistik"),
        Interest::Social => word("Social", "Sosial"),
        Interest::Enterprising => word("Enterprising", "Enterprising"),
        Interest::Conventional => word("Conventional", "Konvensional"),
    }
}

/// What somebody with this interest likes to do; completes "you like to …".
pub(super) const fn likes(interest: Interest) -> Word {
    match interest {
        Interest::Realistic => word(
            "work with your hands, tools and real things",
            "bekerja dengan tangan, alat, dan hal-hal nyata",
        ),
        Interest::Investigative => word(
            "get to the bottom of questions and work with facts and ideas",
            "mendalami pertanyaan serta bekerja dengan fakta dan gagasan",
        ),
        Interest::Artistic => word(
            "create and express things in your own way",
            "mencipta dan mengungkapkan sesuatu dengan cara Anda sendiri",
        ),
        Interest::Social => word(
            "help, teach and be there for others",
            "membantu, mengajar, dan mendampingi orang lain",
        ),
        Interest::Enterprising => word(
            "take the lead, convince others and get things started",
            "memimpin, meyakinkan orang lain, dan memulai sesuatu",
        ),
        Interest::Conventional => word(
            "bring order and reliability to data and processes",
            "menata data dan proses dengan rapi dan andal",
        ),
    }
}

pub(super) const fn one_trait(one: Trait) -> Word {
    match one {
        Trait::Openness => word("openness", "keterbukaan"),
        Trait::Conscientiousness => word("conscientiousness", "kehati-hatian"),
        Trait::Extraversion => word("extraversion", "ekstraversi"),
        Trait::Agreeableness => word("agreeableness", "keramahan"),
        Trait::Neuroticism => word("neuroticism", "neurotisisme"),
    }
}

/// What a high score of this trait tends to mean; completes "people with it …".
pub(super) const fn tends(one: Trait) -> Word {
    match one {
        Trait::Openness => word(
            "are curious and enjoy new ideas",
            "ingin tahu dan menikmati gagasan baru",
        ),
        Trait::Conscientiousness => word(
            "plan well and see things through",
            "pandai merencanakan dan menuntaskan pekerjaan",
        ),
        Trait::Extraversion => word(
            "draw energy from being with others",
            "mendapat energi dari kebersamaan dengan orang lain",
        ),
        Trait::Agreeableness => word(
            "are considerate and work well with others",
            "penuh perhatian dan mudah bekerja sama",
        ),
        Trait::Neuroticism => word(
            "notice tension early and feel things deeply",
            "cepat menangkap ketegangan dan merasakan sesuatu dengan mendalam",
        ),
    }
}

/// The name of a strength as a person would write it: `love_of_learning` and `loveOfLearning` are
/// both "love of learning".
pub(super) fn strength(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut before_is_lower = false;
    for c in name.chars() {
        match c {
            '_' | '-' | ' ' | '\t' | '\n' => {
                if !words.ends_with(' ') && !words.is_empty() {
                    words.push(' ');
                }
                before_is_lower = false;
            }
            c => {
                if c.is_uppercase() && before_is_lower {
                    words.push(' ');
                }
                before_is_lower = c.is_lowercase() || c.is_numeric();
                words.extend(c.to_lowercase());
            }
        }
    }
    words.trim().to_owned()
}
