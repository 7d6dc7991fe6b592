//! Counting tokens as a model does, where its vocabulary is at hand: those of OpenAI's families are part of this
//! program. Other families are estimated, with a margin.
//!
//! A vocabulary takes half a second and up to 50 MB of memory, so it is loaded when the first message of its
//! family has to be counted, beside the work, and never by those who have no such model.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use shared::domain::safe_tokens;
use shared::store::generations::Claim;
use shared::store::{StoreResult, messages};
use tiktoken_rs::CoreBPE;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::context::Context;

/// Messages that wait to be counted; more keep their estimate.
const WAITING: usize = 256;

/// A vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vocabulary {
    O200k,
    Cl100k,
}

static O200K: OnceLock<Option<CoreBPE>> = OnceLock::new();
static CL100K: OnceLock<Option<CoreBPE>> = OnceLock::new();

impl Vocabulary {
    /// That of a model, by its name at the upstream; none where it is of another family.
    fn of(model: &str) -> Option<Self> {
        let name = model.strip_prefix("openai/").unwrap_or(model);
        let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
        let newer = [
            "gpt-4o",
            "chatgpt-4o",
            "gpt-4.1",
            "gpt-4.5",
            "gpt-5",
            "gpt-oss",
            "o1",
            "o3",
            "o4",
        ];
        // A bare name of two letters may be anybody's.
        let is_named = model.starts_with("openai/") || name.contains("gpt-");
        if is_named && begins(&newer) {
            Some(Self::O200k)
        } else if is_named && begins(&["gpt-4", "gpt-3.5"]) {
            Some(Self::Cl100k)
        } else {
            None
        }
    }

    fn cell(self) -> &'static OnceLock<Option<CoreBPE>> {
        match self {
            Self::O200k => &O200K,
            Self::Cl100k => &CL100K,
        }
    }

    /// Loads it, which takes a while.
    fn load(self) -> Option<&'static CoreBPE> {
        let loading = || match self {
            Self::O200k => tiktoken_rs::o200k_base().ok(),
            Self::Cl100k => tiktoken_rs::cl100k_base().ok(),
        };
        self.cell().get_or_init(loading).as_ref()
    }
}

fn count(vocabulary: &CoreBPE, text: &str) -> u32 {
    // What looks like a special token is text: people wrote it.
    u32::try_from(vocabulary.encode_ordinary(text).len()).unwrap_or(u32::MAX)
}

/// The tokens that a text has for a model: exact where its vocabulary is loaded by now, an estimate with a margin
/// otherwise.
#[must_use]
pub(crate) fn tokens(model: &str, text: &str) -> u32 {
    let known = Vocabulary::of(model).and_then(|vocabulary| vocabulary.cell().get()?.as_ref());
    known.map_or_else(|| safe_tokens(text), |vocabulary| count(vocabulary, text))
}

/// A message to count.
#[derive(Debug)]
struct Uncounted {
    id: Uuid,
    user_id: Uuid,
    vocabulary: Vocabulary,
    content: String,
}

/// Messages whose exact size is not stored yet.
#[derive(Debug, Default)]
pub struct Counts {
    waiting: Mutex<Vec<Uncounted>>,
    some: Notify,
}

impl Counts {
    /// The message of a claim is about to be shown to the first of its models.
    pub(crate) fn note(&self, claim: &Claim, content: &str) {
        let model = claim.chain.first();
        let vocabulary = model.and_then(|model| Vocabulary::of(&model.name));
        let (Some(vocabulary), Some(id)) = (vocabulary, claim.user_message_id) else {
            return;
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push(Uncounted {
                id,
                user_id: claim.user_id,
                vocabulary,
                content: content.to_owned(),
            });
            self.some.notify_one();
        }
    }

    fn take(&self) -> Vec<Uncounted> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut waiting)
    }
}

/// Counts for ever. A message that is not counted, whyever, keeps its estimate.
pub(crate) async fn count_messages(context: Arc<Context>) {
    loop {
        context.counts.some.notified().await;
        let waiting = context.counts.take();
        let counting = tokio::task::spawn_blocking(move || {
            let counted = waiting.into_iter().filter_map(|message| {
                let vocabulary = message.vocabulary.load()?;
                Some((
                    message.id,
                    message.user_id,
                    count(vocabulary, &message.content),
                ))
            });
            counted.collect::<Vec<_>>()
        });
        for (id, user_id, tokens) in counting.await.unwrap_or_default() {
            if let Err(error) = store(&context, id, user_id, tokens).await {
                let error = &error as &dyn std::error::Error;
                tracing::info!(message.id = %id, error, "a message keeps an estimate of its tokens");
            }
        }
    }
}

async fn store(context: &Context, id: Uuid, user_id: Uuid, tokens: u32) -> StoreResult<()> {
    let mut tx = context.db.user_async(user_id).await?;
    messages::set_token_count(&mut tx, id, tokens).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_vocabulary_or_none() {
        for (model, expected) in [
            ("openai/gpt-4o-mini", Some(Vocabulary::O200k)),
            ("openai/gpt-5-nano", Some(Vocabulary::O200k)),
            ("openai/gpt-oss-20b:free", Some(Vocabulary::O200k)),
            ("openai/o3-mini", Some(Vocabulary::O200k)),
            ("gpt-4.1", Some(Vocabulary::O200k)),
            ("openai/gpt-4-turbo", Some(Vocabulary::Cl100k)),
            ("openai/gpt-3.5-turbo", Some(Vocabulary::Cl100k)),
            ("o1", None),
            ("meta-llama/llama-3.2-3b-instruct:free", None),
            ("somebody/gpt-4o-lookalike", None),
            ("openai/whisper-1", None),
        ] {
            assert_eq!(Vocabulary::of(model), expected, "{model}");
        }
    }

    #[test]
    fn counts_are_those_of_the_published_tokeniser() {
        // From OpenAI's own cookbook.
        let cl100k = Vocabulary::Cl100k.load().unwrap();
        assert_eq!(count(cl100k, "antidisestablishmentarianism"), 6);
        assert_eq!(count(cl100k, "2 + 2 = 4"), 7);
        let o200k = Vocabulary::O200k.load().unwrap();
        assert_eq!(count(o200k, "antidisestablishmentarianism"), 6);
        assert_eq!(count(o200k, "お誕生日おめでとう"), 8);
        // Once loaded, it is used; a family without one is estimated.
        assert_eq!(tokens("openai/gpt-4o", "2 + 2 = 4"), 7);
        assert_eq!(tokens("qwen/qwen3", "2 + 2 = 4"), safe_tokens("2 + 2 = 4"));
        let special = "<|endoftext|>";
        assert!(
            tokens("openai/gpt-4o", special) > 1,
            "people's text is never special"
        );
    }

    /// The estimate is stored for families whose vocabulary is not at hand; no tokeniser of those that are may
    /// find more in what people write here.
    #[test]
    fn the_estimate_is_safe_for_what_people_write() {
        let texts = [
            "Bagaimana cara mencetak SP2D di SIPD? Saya sudah mengajukan SPM kemarin, tetapi tombol cetak tidak muncul \
             di menu penatausahaan. Apakah ada langkah yang terlewat, misalnya verifikasi oleh PPK-SKPD atau persetujuan \
             BUD? Mohon petunjuknya, karena besok kami harus menyampaikan laporan realisasi anggaran.",
            "Saya mahasiswa semester akhir jurusan akuntansi dan ingin tahu karier apa yang cocok dengan hasil asesmen \
             saya. Kekuatan saya adalah kepemimpinan, ketelitian, dan rasa ingin tahu.",
            "Which career would you recommend for somebody with my assessment results? I like structured work.",
            "如何打印财政支付凭证？我昨天提交了付款申请，但是打印按钮没有出现。",
        ];
        for text in texts {
            for vocabulary in [Vocabulary::O200k, Vocabulary::Cl100k] {
                let exact = count(vocabulary.load().unwrap(), text);
                assert!(exact <= safe_tokens(text), "{vocabulary:?} {exact}: {text}");
            }
        }
    }
}
