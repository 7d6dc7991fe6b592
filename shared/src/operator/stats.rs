//! The figures of the whole fleet.

use std::collections::BTreeMap;

use time::Date;

use super::Operator;
use super::usage::{before, span};
use crate::figures::{Figure, Sum};
use crate::store::StoreResult;
use crate::store::figures::{self, CacheSize};
use crate::store::learning::questions::{self, Outcomes};
use crate::store::usage::{self, Part};

/// What was done in some days, by UTC.
#[derive(Clone, Debug)]
pub struct Stats {
    /// The first of them.
    pub from: Date,
    /// The last one, today.
    pub to: Date,
    /// What the processes have counted.
    pub figures: BTreeMap<Figure, Sum>,
    /// What calls took, by operation and model.
    pub parts: Vec<Part>,
    /// How far the help desk got without people.
    pub outcomes: Outcomes,
    /// What the workers remember now.
    pub cache: CacheSize,
}

impl Operator {
    /// The figures of the last `days`, today included.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn stats(&self, days: u16) -> StoreResult<Stats> {
        let to = self.clock.now().to_offset(time::UtcOffset::UTC).date();
        let from = before(to, days);
        let span = span(from, to);
        let mut tx = self.view.operator().await?;
        Ok(Stats {
            from,
            to,
            figures: figures::between(&mut tx, from, to).await?,
            parts: usage::parts_of_everybody(&mut tx, span).await?,
            outcomes: questions::outcomes(&mut tx, span.from).await?,
            cache: figures::remembered(&mut tx).await?,
        })
    }
}
