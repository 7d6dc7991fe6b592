//! The models the simulator lists, with prices in credits per token.
//!
//! The ids are real ones, the prices are of the real order of magnitude but the simulator's own:
//! its books must be right to the last digit, not up to date.

use rust_decimal::Decimal;
use serde_json::{Value, json};

/// The provider every call is served by.
pub const PROVIDER: &str = "Simulated";

/// A model as `GET /models` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Its id.
    pub id: &'static str,
    /// How many tokens prompt and reply may have together.
    pub context_length: u32,
    /// Credits per prompt token.
    pub prompt_price: Decimal,
    /// Credits per token of the reply.
    pub completion_price: Decimal,
    /// Dimensions of its vectors, for an embedding model.
    pub dimension: Option<usize>,
}

const fn model(id: &'static str, context_length: u32, prompt: i64, completion: i64) -> Model {
    Model {
        id,
        context_length,
        prompt_price: Decimal::from_parts(prompt as u32, 0, 0, false, PRICE_SCALE),
        completion_price: Decimal::from_parts(completion as u32, 0, 0, false, PRICE_SCALE),
        dimension: None,
    }
}

const fn embedder(id: &'static str, context_length: u32, prompt: i64, dimension: usize) -> Model {
    Model {
        dimension: Some(dimension),
        ..model(id, context_length, prompt, 0)
    }
}

/// Prices below are in 10⁻⁹ credits per token, that is credits per billion tokens.
const PRICE_SCALE: u32 = 9;

/// All listed models. `sim/tiny` has a window small enough to overflow in a test.
pub const MODELS: &[Model] = &[
    model("qwen/qwen3-235b-a22b-07-25:free", 262_144, 0, 0),
    model("meta-llama/llama-3.2-3b-instruct:free", 131_072, 0, 0),
    model("deepseek/deepseek-chat-v3-0324:free", 163_840, 0, 0),
    model("qwen/qwen3-235b-a22b-07-25", 262_144, 78, 312),
    model("meta-llama/llama-3.2-3b-instruct", 131_072, 3, 6),
    model("openai/gpt-4o-mini", 128_000, 150, 600),
    model("openai/gpt-4o", 128_000, 2_500, 10_000),
    model("anthropic/claude-3.5-haiku", 200_000, 800, 4_000),
    model("google/gemini-2.5-flash", 1_048_576, 300, 2_500),
    model("sim/tiny", 1_024, 100, 200),
    model("sim/tiny:free", 1_024, 0, 0),
    embedder("Qwen/Qwen3-Embedding-8B", 32_768, 10, 4_096),
    embedder("BAAI/bge-en-icl", 32_768, 10, 4_096),
    embedder("BAAI/bge-multilingual-gemma2", 8_192, 10, 3_584),
    embedder("openai/text-embedding-3-small", 8_192, 20, 1_536),
];

/// Dimensions of an embedding model that is not listed.
pub const DEFAULT_DIMENSION: usize = 1_024;

/// The model `id`. One that is not listed is served too, with a large window and a middling
/// price: the simulator stands behind any configuration.
pub fn find(id: &str) -> Model {
    let listed = MODELS.iter().find(|model| model.id == id).copied();
    listed.unwrap_or_else(|| {
        if is_free(id) {
            model("", 131_072, 0, 0)
        } else {
            model("", 131_072, 500, 1_500)
        }
    })
}

/// True for the models that cost nothing and count against the free limits.
pub fn is_free(id: &str) -> bool {
    id.ends_with(":free")
}

/// The answer of `GET /models`.
pub fn listing() -> Value {
    let models: Vec<Value> = MODELS
        .iter()
        .map(|model| {
            json!({
                "id": model.id,
                "canonical_slug": model.id.trim_end_matches(":free"),
                "name": model.id,
                "created": 1_753_000_000,
                "context_length": model.context_length,
                "architecture": {"modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"]},
                "pricing": {"prompt": model.prompt_price.normalize().to_string(), "completion": model.completion_price.normalize().to_string(), "request": "0"},
                "top_provider": {"context_length": model.context_length, "max_completion_tokens": model.context_length / 4, "is_moderated": false},
                "supported_parameters": ["max_tokens", "temperature"],
            })
        })
        .collect();
    json!({"data": models})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact() {
        assert_eq!(
            find("openai/gpt-4o-mini").prompt_price.to_string(),
            "0.000000150"
        );
        assert!(
            MODELS
                .iter()
                .all(|model| !is_free(model.id) || model.completion_price.is_zero())
        );
        assert!(find("nobody/knows:free").prompt_price.is_zero());
    }
}
