//! Which of the desk's two languages a message is written in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Text;

/// A language the desk answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Indonesian, in whatever register.
    Id,
    /// English.
    En,
}

const ENGLISH: &[&str] = &[
    "the", "is", "are", "my", "i", "cannot", "can't", "how", "what", "why", "when", "where",
    "please", "not", "does", "do", "did", "it", "this", "that", "with", "for", "on", "to", "of",
    "in", "and", "was", "were", "have", "has", "would", "like", "want", "need", "help", "you",
    "your", "after", "still", "there", "be", "been", "an", "we", "should", "hello", "thanks",
    "thank", "a", "me", "at", "keeps", "says", "gets", "or", "if", "but", "talk", "someone",
    "human", "agent", "person", "from", "by", "could", "any", "all", "again", "only", "because",
    "although", "while", "he", "she", "they", "their", "them", "our", "out", "off", "over",
    "under", "before", "into", "than", "then", "which", "who", "its", "him", "her",
];
const INDONESIAN: &[&str] = &[
    "yang",
    "tidak",
    "saya",
    "di",
    "ke",
    "dan",
    "untuk",
    "bagaimana",
    "gimana",
    "kenapa",
    "mengapa",
    "apa",
    "bisa",
    "ga",
    "gak",
    "nggak",
    "belum",
    "sudah",
    "udah",
    "mohon",
    "tolong",
    "dari",
    "ini",
    "itu",
    "dengan",
    "ada",
    "kok",
    "ya",
    "aku",
    "kami",
    "pak",
    "bu",
    "min",
    "admin",
    "muncul",
    "gagal",
    "lupa",
    "masuk",
    "tdk",
    "blm",
    "dong",
    "sih",
    "nih",
    "cara",
    "mau",
    "ingin",
    "minta",
    "pada",
    "saat",
    "laporan",
    "anggaran",
    "terima",
    "kasih",
    "selamat",
    "pagi",
    "siang",
    "sore",
    "malam",
    "lagi",
    "terus",
    "banget",
    "sangat",
    "sekali",
    "petugas",
    "orang",
    "bicara",
    "kecewa",
    "hilang",
];

/// The language; Indonesian where the message does not tell.
#[must_use]
pub fn language(text: &Text) -> Language {
    let count = |list: &[&str]| {
        text.words
            .iter()
            .filter(|word| list.contains(&word.as_str()))
            .count()
    };
    if count(ENGLISH) > count(INDONESIAN) {
        Language::En
    } else {
        Language::Id
    }
}
