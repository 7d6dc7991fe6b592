//! The classification table: what an error says, and what it is then. The first row that matches
//! counts.

use super::ErrorClass;

/// A row of the table: it matches when each of its conditions does. An empty list is no condition.
#[derive(Debug)]
pub(super) struct Rule {
    /// The HTTP status or, inside a stream, `error.code`.
    pub(super) codes: &'static [u16],
    /// `error.metadata.error_type`, or where there is none `error.code` and `error.type` as text;
    /// `""` stands for no name at all.
    pub(super) names: &'static [&'static str],
    /// Parts of `error.metadata.limit_source`.
    pub(super) limits: &'static [&'static str],
    /// Parts of the message, in lower case: the last resort, for servers that say it nowhere else.
    pub(super) message: &'static [&'static str],
    /// A hint about the time that must be there.
    pub(super) needs: Needs,
    /// What it is then.
    pub(super) class: ErrorClass,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Needs {
    Nothing,
    RetryAfter,
    Reset,
}

const ANY: Rule = Rule {
    codes: &[],
    names: &[],
    limits: &[],
    message: &[],
    needs: Needs::Nothing,
    class: ErrorClass::ServerError,
};

/// Names that say no more than the code does.
const VAGUE: &[&str] = &[
    "",
    "invalid_request",
    "invalid_request_error",
    "badrequesterror",
];

/// The classification table of upstream.md. What the error itself says comes first, then what its
/// message says, then its code.
pub(super) const RULES: &[Rule] = &[
    // The error's own type: OpenRouter's open enum, and OpenAI's names for the same.
    Rule {
        names: &["context_length_exceeded", "string_too_long"],
        class: ErrorClass::ContextLength,
        ..ANY
    },
    Rule {
        names: &["content_policy_violation", "refusal", "content_filter"],
        class: ErrorClass::ContentPolicy,
        ..ANY
    },
    Rule {
        names: &["authentication", "authentication_error", "invalid_api_key"],
        class: ErrorClass::KeyRefused,
        ..ANY
    },
    Rule {
        limits: &["in_flight"],
        class: ErrorClass::InFlightBudget,
        ..ANY
    },
    Rule {
        codes: &[402],
        needs: Needs::RetryAfter,
        class: ErrorClass::InFlightBudget,
        ..ANY
    },
    Rule {
        limits: &["key_limit"],
        class: ErrorClass::PaymentRequired,
        ..ANY
    },
    Rule {
        names: &[
            "payment_required",
            "token_limit_exceeded",
            "insufficient_quota",
            "insufficient_credits",
        ],
        class: ErrorClass::PaymentRequired,
        ..ANY
    },
    // A limit that many accounts share concerns one model only, though it names a reset time.
    Rule {
        codes: &[429],
        limits: &["shared_capacity"],
        class: ErrorClass::Capacity,
        ..ANY
    },
    Rule {
        names: &["rate_limit_exceeded"],
        needs: Needs::Reset,
        class: ErrorClass::PlatformLimit,
        ..ANY
    },
    Rule {
        names: &["rate_limit_exceeded", "rate_limit_error"],
        class: ErrorClass::Capacity,
        ..ANY
    },
    Rule {
        names: &["model_not_found", "invalid_model"],
        class: ErrorClass::UnknownModel,
        ..ANY
    },
    Rule {
        codes: &[400],
        names: &["not_found"],
        class: ErrorClass::UnknownModel,
        ..ANY
    },
    // A guardrail or a data policy keeps the account from this model; the key itself is good.
    Rule {
        names: &["not_found", "permission_denied"],
        class: ErrorClass::NoEndpoint,
        ..ANY
    },
    Rule {
        codes: &[503],
        names: &["provider_overloaded", "provider_unavailable"],
        class: ErrorClass::Unavailable,
        ..ANY
    },
    Rule {
        names: &[
            "provider_overloaded",
            "provider_unavailable",
            "server",
            "server_error",
            "timeout",
        ],
        class: ErrorClass::ServerError,
        ..ANY
    },
    // The message, where the type says nothing.
    Rule {
        codes: &[400, 413, 422],
        names: VAGUE,
        message: &["context length", "context window", "context_length"],
        class: ErrorClass::ContextLength,
        ..ANY
    },
    Rule {
        codes: &[400, 422],
        names: VAGUE,
        message: &[
            "not a valid model",
            "model not found",
            "unknown model",
            "invalid model",
        ],
        class: ErrorClass::UnknownModel,
        ..ANY
    },
    Rule {
        codes: &[400, 403],
        names: VAGUE,
        message: &[
            "content policy",
            "content management policy",
            "moderation",
            "flagged",
        ],
        class: ErrorClass::ContentPolicy,
        ..ANY
    },
    Rule {
        codes: &[403],
        names: VAGUE,
        message: &["key limit"],
        class: ErrorClass::PaymentRequired,
        ..ANY
    },
    // The types that are our bug, after the messages that make an exception of some of them.
    Rule {
        names: &[
            "invalid_request",
            "invalid_prompt",
            "max_tokens_exceeded",
            "precondition_failed",
            "payload_too_large",
            "unprocessable",
            "invalid_image",
            "image_too_large",
            "image_too_small",
            "unsupported_image_format",
            "image_not_found",
            "image_download_failed",
        ],
        class: ErrorClass::InvalidRequest,
        ..ANY
    },
    // The code alone.
    Rule {
        codes: &[401],
        class: ErrorClass::KeyRefused,
        ..ANY
    },
    Rule {
        codes: &[402],
        class: ErrorClass::PaymentRequired,
        ..ANY
    },
    Rule {
        codes: &[403],
        class: ErrorClass::ContentPolicy,
        ..ANY
    },
    Rule {
        codes: &[404],
        class: ErrorClass::NoEndpoint,
        ..ANY
    },
    Rule {
        codes: &[408, 500, 502, 504, 524, 529],
        class: ErrorClass::ServerError,
        ..ANY
    },
    Rule {
        codes: &[429],
        needs: Needs::Reset,
        class: ErrorClass::PlatformLimit,
        ..ANY
    },
    Rule {
        codes: &[429],
        class: ErrorClass::Capacity,
        ..ANY
    },
    Rule {
        codes: &[503],
        class: ErrorClass::Unavailable,
        ..ANY
    },
    Rule {
        codes: &[400, 413, 422],
        class: ErrorClass::InvalidRequest,
        ..ANY
    },
];
