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

/// The signals that asked this process to stop. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<Signals>);

#[derive(Debug, Default)]
struct Signals {
    /// The last signal, until somebody has looked at it.
    new: Arc<AtomicUsize>,
    /// The first one. It stays, so that no step that swallows an error swallows the wish to stop.
    first: AtomicUsize,
}

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP for the rest of the process's life.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let this = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let value = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&this.0.new), value)
                .context("cannot catch signals")?;
        }
        Ok(this)
    }

    /// The signal that came since the last call, if one did: a second Ctrl-C is seen as a new one.
    pub(crate) fn take(&self) -> Option<Signal> {
        let raw = self.0.new.swap(0, Ordering::SeqCst);
        if raw != 0 {
            let first = &self.0.first;
            let _ = first.compare_exchange(0, raw, Ordering::SeqCst, Ordering::SeqCst);
        }
        to_signal(raw)
    }

    /// Fails with [`Interrupted`] once a signal has come: for use between two steps.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.take();
        match to_signal(self.0.first.load(Ordering::SeqCst)) {
            Some(signal) => Err(Interrupted(signal).into()),
            None => Ok(()),
        }
    }
}

fn to_signal(raw: usize) -> Option<Signal> {
    let raw = i32::try_from(raw).ok()?;
    Signal::try_from(raw).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_new_once_and_stops_every_later_step() {
        let interrupt = Interrupt::default();
        assert!(interrupt.check().is_ok());
        let arrive = |signal: Signal| {
            let raw = usize::try_from(signal as i32).unwrap();
            interrupt.0.new.store(raw, Ordering::SeqCst);
        };
        arrive(Signal::SIGINT);
        assert_eq!(interrupt.take(), Some(Signal::SIGINT));
        assert_eq!(interrupt.take(), None);
        arrive(Signal::SIGTERM);
        assert_eq!(interrupt.take(), Some(Signal::SIGTERM));
        for _ in 0..2 {
            let error = interrupt.check().unwrap_err();
            assert!(error.is::<Interrupted>());
            assert_eq!(error.to_string(), "stopped by SIGINT");
        }
    }
}
