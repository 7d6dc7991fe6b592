//! Lets the domain's named enums stand in SQL as the text they are.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

use crate::domain::assessment::{Language, LanguageSource, Stage};
use crate::domain::{
    ContentType, ContextType, ConversationStatus, DeadReason, Destination, FailureCode,
    GenerationKind, GenerationStatus, IngestionKind, IngestionStatus, NotificationType, Priority,
    ProfileState, ProposalState, SenderType, SupportState, WaitsFor, WorkerStatus,
};

macro_rules! text_in_sql {
    ($($name:ty),+ $(,)?) => {$(
        impl Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <&str as Type<Postgres>>::type_info()
            }
            fn compatible(ty: &PgTypeInfo) -> bool {
                <&str as Type<Postgres>>::compatible(ty)
            }
        }
        impl Encode<'_, Postgres> for $name {
            fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                <&str as Encode<Postgres>>::encode(self.as_str(), buffer)
            }
        }
        impl<'r> Decode<'r, Postgres> for $name {
            fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
                Ok(<&str as Decode<Postgres>>::decode(value)?.parse()?)
            }
        }
    )+};
}

text_in_sql!(
    ContentType,
    ContextType,
    ConversationStatus,
    DeadReason,
    Destination,
    FailureCode,
    GenerationKind,
    GenerationStatus,
    IngestionKind,
    IngestionStatus,
    Language,
    LanguageSource,
    NotificationType,
    Priority,
    ProfileState,
    ProposalState,
    SenderType,
    Stage,
    SupportState,
    WaitsFor,
    WorkerStatus,
);
