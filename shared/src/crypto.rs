//! Hashes and comparisons that must not leak.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// SHA-256 over the parts, each preceded by its length so that no two lists of parts collide.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Bytes as lowercase hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares two secrets in a time that tells nothing about where they differ.
#[must_use]
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// A name for a user that the upstream may see: stable, and of no use to anyone else.
#[must_use]
pub fn user_alias(user_id: uuid::Uuid) -> String {
    hex(sha256(&[b"balas.user_alias", user_id.as_bytes()])
        .get(..16)
        .unwrap_or_default())
}
