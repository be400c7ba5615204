//! Waiting for conditions.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value, at most for `limit`.
///
/// # Errors
/// The limit passed; `what` and the last reason are in the error.
pub fn until_some<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match condition() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if start.elapsed() > limit {
            bail!(
                "{what}: not within {} s; last seen: {last}",
                limit.as_secs()
            );
        }
        // the pace of asking, not a wait for an event
        std::thread::park_timeout(Duration::from_millis(300));
    }
}

/// Asks `condition` until it holds, at most for `limit`.
///
/// # Errors
/// As [`until_some`].
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    until_some(what, limit, || {
        if condition() {
            Ok(())
        } else {
            Err("not yet".into())
        }
    })
}
