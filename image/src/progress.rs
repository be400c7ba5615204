//! How a build tells what it is doing.

use std::time::Duration;

use crate::error::Result;

/// One thing that happened. Steps may overlap: each event names its own.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step began; `total` is in bytes where it is known.
    Start {
        /// The step's name, fit for a progress bar.
        step: &'a str,
        /// Bytes to do.
        total: Option<u64>,
    },
    /// A running step got further by `bytes`.
    Advance {
        /// The step's name.
        step: &'a str,
        /// Bytes done since the last event.
        bytes: u64,
    },
    /// A step ended.
    Done {
        /// The step's name.
        step: &'a str,
        /// Nothing had changed: the result came from the cache.
        cached: bool,
        /// How long it took.
        took: Duration,
    },
    /// Something the operator should read (a lock made anew, a second attempt).
    Note(&'a str),
}

/// Receives events, from several threads at once.
pub trait Progress: Send + Sync {
    /// Called for each event; must not block for long.
    fn event(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>) + Send + Sync> Progress for F {
    fn event(&self, event: Event<'_>) {
        self(event);
    }
}

/// Drops every event.
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// Runs `work` as the step `step`; `work` says whether the cache had it.
pub(crate) fn step<T>(
    progress: &dyn Progress,
    step: &str,
    work: impl FnOnce() -> Result<(T, bool)>,
) -> Result<T> {
    let begun = std::time::Instant::now();
    progress.event(Event::Start { step, total: None });
    let (value, cached) = work()?;
    progress.event(Event::Done {
        step,
        cached,
        took: begun.elapsed(),
    });
    Ok(value)
}
