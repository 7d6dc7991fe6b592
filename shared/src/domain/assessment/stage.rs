//! How far an assessment is on its way to a conversation.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Language;
use crate::domain::{named_enum, timestamp};

named_enum! {
    /// A stage. They never go backwards, whatever order the events come in.
    pub enum Stage {
        /// The answers were handed in.
        Submitted = "assessment_submitted",
        /// The analysis runs.
        Started = "analysis_started",
        /// The results are there and the welcome is being written.
        Complete = "analysis_complete",
        /// The conversation has its welcome.
        Ready = "chatbot_ready",
        /// The analysis failed. A later one may still succeed.
        Failed = "failed",
    }
}

impl Stage {
    /// Percent of the way.
    #[must_use]
    pub const fn progress(self) -> u8 {
        match self {
            Self::Submitted => 25,
            Self::Started => 50,
            Self::Complete => 75,
            Self::Ready => 100,
            Self::Failed => 0,
        }
    }

    /// Later stages have higher ranks. A failure comes after the start and before the results: what
    /// was found is not undone by a late word that nothing was.
    #[must_use]
    pub const fn rank(self) -> i16 {
        match self {
            Self::Submitted => 1,
            Self::Started => 2,
            Self::Failed => 3,
            Self::Complete => 4,
            Self::Ready => 5,
        }
    }

    const fn title(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::Submitted, Language::English) => "Assessment received",
            (Self::Submitted, Language::Indonesian) => "Asesmen diterima",
            (Self::Started, Language::English) => "Analysis in progress",
            (Self::Started, Language::Indonesian) => "Analisis sedang berjalan",
            (Self::Complete, Language::English) => "Your results are ready",
            (Self::Complete, Language::Indonesian) => "Hasil Anda sudah siap",
            (Self::Ready, Language::English) => "Your career assistant is ready",
            (Self::Ready, Language::Indonesian) => "Asisten karier Anda sudah siap",
            (Self::Failed, Language::English) => "The analysis did not succeed",
            (Self::Failed, Language::Indonesian) => "Analisis tidak berhasil",
        }
    }

    const fn message(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::Submitted, Language::English) => {
                "We have received your answers and will analyse them now."
            }
            (Self::Submitted, Language::Indonesian) => {
                "Jawaban Anda sudah kami terima dan akan segera dianalisis."
            }
            (Self::Started, Language::English) => "Your answers are being analysed.",
            (Self::Started, Language::Indonesian) => "Jawaban Anda sedang dianalisis.",
            (Self::Complete, Language::English) => {
                "Your results are there. A conversation about them is being prepared."
            }
            (Self::Complete, Language::Indonesian) => {
                "Hasil Anda sudah tersedia. Percakapan tentang hasil itu sedang disiapkan."
            }
            (Self::Ready, Language::English) => {
                "You can talk about your results now; a welcome is waiting for you."
            }
            (Self::Ready, Language::Indonesian) => {
                "Anda sudah dapat membicarakan hasil Anda; sambutan untuk Anda sudah menunggu."
            }
            (Self::Failed, Language::English) => {
                "Your answers could not be analysed. Please try again later."
            }
            (Self::Failed, Language::Indonesian) => {
                "Jawaban Anda tidak dapat dianalisis. Silakan coba lagi nanti."
            }
        }
    }
}

/// A stage as it is pushed and told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageNotice {
    /// A headline for the person.
    pub title: &'static str,
    /// A sentence for the person.
    pub message: &'static str,
    /// Percent of the way; 0 for a failure.
    pub progress: u8,
    /// The stage.
    pub stage: Stage,
    /// The assessment.
    #[serde(rename = "assessmentId")]
    pub assessment_id: Uuid,
    /// When it was reached.
    #[serde(with = "timestamp")]
    pub timestamp: OffsetDateTime,
    /// Where to go on.
    pub action: StageAction,
}

/// Where a page may take the person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageAction {
    /// `redirect`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A path of the platform's frontend.
    pub url: String,
}

impl StageNotice {
    /// The notice of a stage that was reached at `timestamp`.
    #[must_use]
    pub fn new(
        stage: Stage,
        assessment_id: Uuid,
        language: Language,
        timestamp: OffsetDateTime,
    ) -> Self {
        Self {
            title: stage.title(language),
            message: stage.message(language),
            progress: stage.progress(),
            stage,
            assessment_id,
            timestamp,
            action: StageAction {
                kind: "redirect",
                url: format!("/assessment/{assessment_id}/results"),
            },
        }
    }
}
