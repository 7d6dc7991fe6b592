//! What is suggested, and what is said when no model answers.

use super::{Intent, Language};

/// What the person may want to ask next.
#[must_use]
pub const fn suggestions(intent: Intent, language: Language) -> [&'static str; 3] {
    match (language, intent) {
        (Language::Id, Intent::LoginIssue) => [
            "Bagaimana cara mengatur ulang kata sandi?",
            "Akun saya terkunci, apa yang harus dilakukan?",
            "Kode verifikasi tidak masuk",
        ],
        (Language::Id, Intent::DpaIssue) => [
            "Bagaimana cara memeriksa pagu anggaran?",
            "DPA tidak muncul setelah validasi",
            "Bagaimana mengajukan pergeseran anggaran?",
        ],
        (Language::Id, Intent::LaporanIssue) => [
            "Laporan tidak bisa dicetak",
            "Angka realisasi berbeda dengan BKU",
            "Bagaimana cara mengekspor laporan?",
        ],
        (Language::Id, Intent::TechnicalIssue) => [
            "Apa pesan kesalahan yang muncul?",
            "Di menu mana masalah ini terjadi?",
            "Hubungkan saya dengan petugas",
        ],
        (Language::Id, Intent::GeneralInquiry) => [
            "Di mana saya menemukan panduan pengguna?",
            "Bagaimana urutan SPP, SPM dan SP2D?",
            "Hubungkan saya dengan petugas",
        ],
        (Language::Id, Intent::Complaint) => [
            "Hubungkan saya dengan petugas",
            "Jelaskan masalah yang belum selesai",
            "Kapan masalah saya ditangani?",
        ],
        (Language::Id, Intent::FeatureRequest) => [
            "Sampaikan usulan fitur",
            "Apakah fitur ini sudah direncanakan?",
            "Hubungkan saya dengan petugas",
        ],
        (Language::En, Intent::LoginIssue) => [
            "How do I reset my password?",
            "My account is locked, what now?",
            "The verification code does not arrive",
        ],
        (Language::En, Intent::DpaIssue) => [
            "How do I check the budget ceiling?",
            "The DPA does not appear after validation",
            "How do I request a budget shift?",
        ],
        (Language::En, Intent::LaporanIssue) => [
            "The report cannot be printed",
            "The realisation differs from the cash book",
            "How do I export a report?",
        ],
        (Language::En, Intent::TechnicalIssue) => [
            "What does the error message say?",
            "In which menu does it happen?",
            "Connect me to a support officer",
        ],
        (Language::En, Intent::GeneralInquiry) => [
            "Where do I find the user guide?",
            "In which order come SPP, SPM and SP2D?",
            "Connect me to a support officer",
        ],
        (Language::En, Intent::Complaint) => [
            "Connect me to a support officer",
            "Describe what is still unsolved",
            "When will my case be handled?",
        ],
        (Language::En, Intent::FeatureRequest) => [
            "Submit a feature request",
            "Is this feature planned?",
            "Connect me to a support officer",
        ],
    }
}

/// What is said when no model answers: the best entry as it is written, if there is one, and otherwise
/// that a person will see to it.
#[must_use]
pub fn answer(intent: Intent, language: Language, solution: Option<&str>) -> String {
    let opening = match (language, intent) {
        (Language::Id, Intent::LoginIssue) => "Mohon maaf atas kendala masuk ke akun Anda.",
        (Language::Id, Intent::DpaIssue) => "Mohon maaf atas kendala pada data anggaran Anda.",
        (Language::Id, Intent::LaporanIssue) => "Mohon maaf atas kendala pada laporan Anda.",
        (Language::Id, Intent::TechnicalIssue) => "Mohon maaf atas kendala teknis yang Anda alami.",
        (Language::Id, Intent::GeneralInquiry) => "Terima kasih atas pertanyaan Anda.",
        (Language::Id, Intent::Complaint) => {
            "Mohon maaf atas ketidaknyamanan yang Anda alami; keluhan Anda kami catat."
        }
        (Language::Id, Intent::FeatureRequest) => {
            "Terima kasih atas usulan Anda; kami catat untuk tim pengembang."
        }
        (Language::En, Intent::LoginIssue) => "We are sorry that you cannot get into your account.",
        (Language::En, Intent::DpaIssue) => "We are sorry about the trouble with your budget data.",
        (Language::En, Intent::LaporanIssue) => "We are sorry about the trouble with your report.",
        (Language::En, Intent::TechnicalIssue) => "We are sorry about the technical trouble.",
        (Language::En, Intent::GeneralInquiry) => "Thank you for your question.",
        (Language::En, Intent::Complaint) => {
            "We are sorry for the inconvenience; your complaint has been noted."
        }
        (Language::En, Intent::FeatureRequest) => {
            "Thank you for the suggestion; we have noted it for the developers."
        }
    };
    let rest = match (language, solution) {
        (Language::Id, Some(solution)) => format!("Panduan kami menyebutkan [1]:\n\n{solution}\n\nJika ini belum membantu, petugas akan menindaklanjuti."),
        (Language::En, Some(solution)) => format!("Our guide says [1]:\n\n{solution}\n\nIf this does not help, a support officer will follow up."),
        (Language::Id, None) => "Asisten otomatis sedang tidak dapat menjawab, sehingga pertanyaan Anda diteruskan kepada petugas.".to_owned(),
        (Language::En, None) => "The automatic assistant cannot answer at the moment, so your question is passed on to a support officer.".to_owned(),
    };
    format!("{opening} {rest}")
}
