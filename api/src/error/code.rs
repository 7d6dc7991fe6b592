//! The stable codes of every error the API answers. This list is the documentation's source.

use http::StatusCode;

macro_rules! codes {
    // `$text` is a token and not a literal, because utoipa does not see through the group around one.
    ($($(#[doc = $doc:literal])+ $name:ident = $text:tt, $status:ident, $title:literal;)+) => {
        /// What went wrong, in a word a program can compare. A code never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, utoipa::ToSchema)]
        pub enum Code { $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code as clients see it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The same few words for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// When it happens and what to do, one sentence or two.
            #[must_use]
            pub fn doc(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim(),)+ }
            }
        }
    };
}

codes! {
    /// The request line, a header or the path's encoding cannot be understood.
    MalformedRequest = "malformed_request", BAD_REQUEST, "Malformed request";
    /// The body is not JSON, or is nested deeper than 64 levels.
    MalformedJson = "malformed_json", BAD_REQUEST, "Malformed JSON";
    /// No credentials came with the request.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Authentication required";
    /// The token is forged, incomplete, for somebody else, or signed in a way that is not accepted.
    TokenInvalid = "token_invalid", UNAUTHORIZED, "Invalid token";
    /// The token was valid once; get a new one.
    TokenExpired = "token_expired", UNAUTHORIZED, "Token expired";
    /// The WebSocket ticket is unknown, was used before, or is older than 30 seconds.
    TicketInvalid = "ticket_invalid", UNAUTHORIZED, "Invalid ticket";
    /// The `X-Service-Key` is missing or wrong.
    ServiceKeyInvalid = "service_key_invalid", UNAUTHORIZED, "Invalid service key";
    /// The call is for administrators.
    AdminRequired = "admin_required", FORBIDDEN, "Administrators only";
    /// There is no such path.
    RouteNotFound = "route_not_found", NOT_FOUND, "No such path";
    /// The conversation does not exist, was deleted, or belongs to somebody else.
    ConversationNotFound = "conversation_not_found", NOT_FOUND, "No such conversation";
    /// The message does not exist in this conversation.
    MessageNotFound = "message_not_found", NOT_FOUND, "No such message";
    /// The generation does not exist, or belongs to somebody else.
    GenerationNotFound = "generation_not_found", NOT_FOUND, "No such generation";
    /// There is no such ingestion.
    IngestionNotFound = "ingestion_not_found", NOT_FOUND, "No such ingestion";
    /// There is no such entry in the knowledge base.
    DocumentNotFound = "document_not_found", NOT_FOUND, "No such entry";
    /// There is no such proposal for the knowledge base.
    ProposalNotFound = "proposal_not_found", NOT_FOUND, "No such proposal";
    /// The word has no other meaning.
    SynonymNotFound = "synonym_not_found", NOT_FOUND, "No such synonym";
    /// There is no such dead letter.
    DeadLetterNotFound = "dead_letter_not_found", NOT_FOUND, "No such dead letter";
    /// There is no such dead notification: it was never given up, or is settled by now.
    DeadNotificationNotFound = "dead_notification_not_found", NOT_FOUND, "No such dead notification";
    /// The assessment is not known, or belongs to somebody else.
    AssessmentNotFound = "assessment_not_found", NOT_FOUND, "No such assessment";
    /// There is no such person, or it is somebody else.
    UserNotFound = "user_not_found", NOT_FOUND, "No such person";
    /// The path exists, the method does not; `Allow` lists those that do.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "Body too slow";
    /// A generation of this conversation is unfinished and `concurrency` is `reject`.
    ConversationBusy = "conversation_busy", CONFLICT, "Conversation busy";
    /// The conversation is archived and takes no messages; make it active first.
    ConversationArchived = "conversation_archived", CONFLICT, "Conversation archived";
    /// The generation has ended, so there is nothing to cancel.
    GenerationEnded = "generation_ended", CONFLICT, "Generation ended";
    /// No person has taken this conversation over; take it first.
    NotTakenOver = "not_taken_over", CONFLICT, "Not taken over";
    /// The ingestion has ended, so there is nothing to cancel.
    IngestionEnded = "ingestion_ended", CONFLICT, "Ingestion ended";
    /// The proposal was approved or dismissed before.
    ProposalDecided = "proposal_decided", CONFLICT, "Decided before";
    /// The ingestion left nothing behind that could be tried again.
    NothingToRetry = "nothing_to_retry", CONFLICT, "Nothing to try again";
    /// Another embedding model is being built; wait for it or cancel it first.
    ReindexRunning = "reindex_running", CONFLICT, "Reindex running";
    /// The knowledge base is searched by this embedding model already.
    ModelServes = "model_serves", CONFLICT, "Model serves already";
    /// The dead letter was replayed or discarded before.
    DeadLetterSettled = "dead_letter_settled", CONFLICT, "Settled before";
    /// The message has a reply by now, or one is on its way, so there is nothing left to try again.
    AlreadyAnswered = "already_answered", CONFLICT, "Already answered";
    /// The first request with this `Idempotency-Key` is still running; repeat it later.
    IdempotencyInProgress = "idempotency_in_progress", CONFLICT, "Request still running";
    /// Another request changed the resource since the `ETag` in `If-Match` was read.
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, "Changed meanwhile";
    /// The body is larger than `MAX_BODY_BYTES`.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "Body too large";
    /// The body is not declared as JSON in `Content-Type`, or is compressed.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type";
    /// A field, parameter or header has a wrong type or value, or is unknown; `errors` names each.
    ValidationFailed = "validation_failed", UNPROCESSABLE_ENTITY, "Invalid request";
    /// The uploaded file is no CSV with the columns of the help desk; the message names the line. Nothing was stored.
    FileUnreadable = "file_unreadable", UNPROCESSABLE_ENTITY, "Unreadable file";
    /// The message has more characters than `MAX_MESSAGE_LENGTH`.
    MessageTooLong = "message_too_long", UNPROCESSABLE_ENTITY, "Message too long";
    /// The model is not one this user may choose.
    ModelUnknown = "model_unknown", UNPROCESSABLE_ENTITY, "Unknown model";
    /// Only replies of a model can be made again.
    NotRegenerable = "not_regenerable", UNPROCESSABLE_ENTITY, "Cannot be regenerated";
    /// The event id is malformed or of another generation.
    InvalidCursor = "invalid_cursor", UNPROCESSABLE_ENTITY, "Invalid cursor";
    /// The `Idempotency-Key` was used with another request within 24 hours.
    IdempotencyConflict = "idempotency_conflict", UNPROCESSABLE_ENTITY, "Idempotency key reused";
    /// The path speaks WebSocket only.
    UpgradeRequired = "upgrade_required", UPGRADE_REQUIRED, "WebSocket upgrade required";
    /// Too many requests; `Retry-After` says when the next one may come.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// A budget is used up; `resets_at` and `Retry-After` say when the next one begins.
    BudgetExhausted = "budget_exhausted", TOO_MANY_REQUESTS, "Budget used up";
    /// Too many event streams and WebSockets are open at once; close one first.
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "Too many open streams";
    /// The request line and the headers are larger than 32 KiB together, or more than 100.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large";
    /// A fault of Balas; the request id helps to find it.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
    /// Too many messages wait already; nothing was stored, `Retry-After` says when there may be room.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much work waits";
    /// The results of the assessment are not known yet; repeat the request later.
    ResultsUnavailable = "results_unavailable", CONFLICT, "Results not known yet";
    /// The knowledge base needs the Postgres extension pgvector: install it and run `balas-api migrate` again.
    KnowledgeUnavailable = "knowledge_unavailable", SERVICE_UNAVAILABLE, "No knowledge base";
    /// A part Balas depends on is unavailable; nothing was stored, repeat the request later.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Temporarily unavailable";
    /// The request took longer than the server allows.
    Timeout = "timeout", SERVICE_UNAVAILABLE, "Took too long";
}

impl Code {
    /// The code that fits a bare status of a library that knows no codes.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::NOT_FOUND => Self::RouteNotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::BodyTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::UNPROCESSABLE_ENTITY => Self::ValidationFailed,
            StatusCode::UPGRADE_REQUIRED => Self::UpgradeRequired,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadersTooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_client_error() => Self::MalformedRequest,
            _ => Self::Internal,
        }
    }

    /// The code of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_distinct_and_documented() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(
                code.doc().ends_with('.'),
                "{} needs a sentence",
                code.as_str()
            );
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_eq!(Code::from_name(code.as_str()), Some(*code));
        }
    }
}
