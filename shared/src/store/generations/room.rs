//! How much a worker may claim.

use crate::domain::Priority;

/// What a worker has places for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The queues to claim from, those first that come first, and at most how many of each.
    pub order: Vec<(Priority, u32)>,
    /// At most so many of standard and background together.
    pub lower: u32,
    /// At most so many in all.
    pub all: u32,
}

impl Room {
    /// So many of whatever there is, better work first.
    #[must_use]
    pub fn for_any(places: u32) -> Self {
        Self {
            order: Priority::ALL.iter().map(|queue| (*queue, places)).collect(),
            lower: places,
            all: places,
        }
    }

    /// How many may be claimed whichever of the queues they are from.
    #[must_use]
    pub fn count(&self) -> u32 {
        let most = self.order.iter().map(|(_, most)| *most);
        most.min().unwrap_or(0).min(self.all)
    }

    /// The queues, in order.
    #[must_use]
    pub fn queues(&self) -> Vec<Priority> {
        self.order.iter().map(|(queue, _)| *queue).collect()
    }
}
