//! Headers that several routes take, as the document describes them.

use utoipa::IntoParams;

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "describes a header; `extract::Idempotent` reads it"
)]
pub(super) struct IdempotencyHeader {
    /// The client's name for this request, visible ASCII. The same key with the same body within 24
    /// hours gets the same answer again, marked with `Idempotency-Replayed: true`.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    idempotency_key: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header; `extract::Prefer` reads it")]
pub(super) struct PreferHeader {
    /// `wait=N` holds the answer for up to N (0 to 60) seconds until the generation has ended.
    #[param(rename = "Prefer", pattern = "^wait=([0-9]|[1-5][0-9]|60)$")]
    prefer: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header; `extract::IfMatch` reads it")]
pub(super) struct IfMatchHeader {
    /// The `ETag` of the version the change is meant for.
    #[param(rename = "If-Match", pattern = "^(\\*|\"[!#-~]*\")$")]
    if_match: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "describes a header; `extract::LastEventId` reads it"
)]
pub(super) struct LastEventIdHeader {
    /// Resumes after this event; browsers send it by themselves when they reconnect.
    #[param(rename = "Last-Event-ID")]
    last_event_id: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header; `extract::Speaks` reads it")]
pub(super) struct LanguageHeader {
    /// The language of what Balas itself writes (id or en), for somebody whose profile and own words do not
    /// show it.
    #[param(rename = "Accept-Language")]
    accept_language: Option<String>,
}
