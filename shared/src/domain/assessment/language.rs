//! The two languages of the platform, and telling them apart.

use crate::domain::named_enum;

named_enum! {
    /// A language that Balas speaks by itself.
    #[derive(Default)]
    pub enum Language {
        /// Bahasa Indonesia, which most people of the platform speak.
        #[default]
        Indonesian = "id",
        /// English.
        English = "en",
    }
}

named_enum! {
    /// Who says which language a person speaks; who comes later knows it better.
    pub enum LanguageSource {
        /// Nobody: it is the platform's.
        Default = "default",
        /// The description, which the analysis has written for the person.
        Description = "description",
        /// The person's browser, in `Accept-Language`.
        Client = "client",
        /// What the person wrote.
        Words = "words",
        /// The person's profile.
        Profile = "profile",
    }
}

/// What is known of a person's language besides the assessment and what they wrote.
#[derive(Clone, Copy, Debug)]
pub struct Spoken {
    /// What the person's browser asks for.
    pub client: Option<Language>,
    /// The platform's.
    pub default: Language,
}

/// Words that nearly every sentence has one of, and that mean nothing in the other language.
const INDONESIAN: &[&str] = &[
    "yang",
    "dan",
    "saya",
    "aku",
    "untuk",
    "dengan",
    "apa",
    "apakah",
    "bagaimana",
    "ini",
    "itu",
    "tidak",
    "bukan",
    "adalah",
    "anda",
    "kamu",
    "di",
    "ke",
    "dari",
    "bisa",
    "dapat",
    "ingin",
    "mau",
    "atau",
    "juga",
    "karena",
    "lebih",
    "sangat",
    "sudah",
    "akan",
    "pada",
    "dalam",
    "mereka",
    "kami",
    "kita",
    "seseorang",
    "memiliki",
    "terima",
    "kasih",
    "halo",
    "tolong",
    "mengapa",
    "kenapa",
    "siapa",
    "kapan",
    "karier",
    "pekerjaan",
    "belajar",
    "cocok",
];
const ENGLISH: &[&str] = &[
    "the", "and", "is", "are", "you", "your", "of", "to", "what", "how", "i", "my", "for", "with",
    "in", "a", "do", "does", "that", "this", "it", "not", "can", "want", "or", "because", "who",
    "when", "why", "hello", "hi", "please", "thanks", "thank", "me", "be", "has", "have", "they",
    "which", "career", "job", "person", "at", "on",
];

impl Language {
    /// The language of a text; none where the text does not show it.
    #[must_use]
    pub fn detect(text: &str) -> Option<Self> {
        let (mut indonesian, mut english) = (0_u32, 0_u32);
        // A page says as much as a book.
        for word in text.split(|c: char| !c.is_alphanumeric()).take(2_000) {
            if word.is_empty() || word.len() > 12 {
                continue;
            }
            let word = word.to_lowercase();
            indonesian += u32::from(INDONESIAN.contains(&word.as_str()));
            english += u32::from(ENGLISH.contains(&word.as_str()));
        }
        match indonesian.cmp(&english) {
            std::cmp::Ordering::Greater => Some(Self::Indonesian),
            std::cmp::Ordering::Less => Some(Self::English),
            std::cmp::Ordering::Equal => None,
        }
    }

    /// The language of a tag such as `id`, `id-ID`, `en_US` or of its name; none for any other.
    #[must_use]
    pub fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.trim().split(['-', '_']).next().unwrap_or_default();
        match primary.to_ascii_lowercase().as_str() {
            // `in` is what older systems call it.
            "id" | "in" | "indonesian" | "indonesia" | "bahasa" => Some(Self::Indonesian),
            "en" | "english" => Some(Self::English),
            _ => None,
        }
    }

    /// The first of the languages that somebody would rather read, as `Accept-Language` lists them;
    /// none where neither is among them.
    #[must_use]
    pub fn accepted(header: &str) -> Option<Self> {
        let mut best: Option<(Self, f32)> = None;
        for range in header.split(',') {
            let mut parts = range.split(';');
            let language = Self::of_tag(parts.next().unwrap_or_default());
            let quality =
                parts.find_map(|part| part.trim().strip_prefix("q=")?.trim().parse().ok());
            let quality: f32 = quality.unwrap_or(1.0);
            let Some(language) = language.filter(|_| quality > 0.0) else {
                continue;
            };
            if best.is_none_or(|(_, other)| quality > other) {
                best = Some((language, quality));
            }
        }
        best.map(|(language, _)| language)
    }

    /// One of two texts.
    #[must_use]
    pub fn choose<T>(self, english: T, indonesian: T) -> T {
        match self {
            Self::English => english,
            Self::Indonesian => indonesian,
        }
    }
}
