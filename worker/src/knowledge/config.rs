//! What an operator sets about the knowledge base.

use shared::config::Vars;
use shared::store::knowledge::indexes::IndexRules;

/// The knowledge base's settings, the provider of vectors aside.
#[derive(Clone, Copy, Debug)]
pub struct KnowledgeConfig {
    /// Which collections get an index of their vectors.
    pub index: IndexRules,
}

impl KnowledgeConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        Self {
            index: IndexRules {
                from_texts: vars.within(
                    "KNOWLEDGE_INDEX_FROM",
                    30_000,
                    (0, 1_000_000_000),
                    "texts from which on a collection's vectors get an index; smaller ones are compared all, which is exact; 0 is never",
                ),
                memory_mib: vars.within(
                    "KNOWLEDGE_INDEX_MEMORY_MIB",
                    256,
                    (16, 65_536),
                    "memory of the database that making such an index may take, MiB; 100,000 vectors of 1536 need about 400",
                ),
            },
        }
    }
}
