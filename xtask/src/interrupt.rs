//! Ctrl-C and SIGTERM as a value that the loops of this crate look at.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The last signal that asked this process to stop. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP for the rest of the process's life.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let this = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let value = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&this.0), value)
                .context("cannot catch signals")?;
        }
        Ok(this)
    }

    /// The signal that came since the last call, if one did. A second Ctrl-C is seen as a new one.
    pub(crate) fn take(&self) -> Option<Signal> {
        let raw = self.0.swap(0, Ordering::SeqCst);
        i32::try_from(raw)
            .ok()
            .and_then(|raw| Signal::try_from(raw).ok())
    }

    /// Fails with [`Interrupted`] when a signal came: for use between two steps.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.take() {
            Some(signal) => Err(Interrupted(signal).into()),
            None => Ok(()),
        }
    }
}

/// The error with which a command ends that was asked to stop; it is not reported as a failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupted(pub(crate) Signal);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}
