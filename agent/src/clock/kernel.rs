//! The two calls that move the kernel's clock.
#![allow(unsafe_code)]

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use std::io;

/// Sets the clock, Unix seconds.
///
/// # Errors
/// As `clock_settime(2)`.
pub fn set(to: u64) -> io::Result<()> {
    let to = i64::try_from(to).map_err(io::Error::other)?;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(to, 0)).map_err(io::Error::from)
}

/// Length of a tick at `USER_HZ` 100, microseconds; `adjtimex(2)` allows 10 % less.
const NORMAL: libc::c_long = 10_000;
const SLOW: libc::c_long = 9_000;

/// Lets the clock run 10 % slower, or as usual.
///
/// # Errors
/// As `adjtimex(2)`.
pub fn tick(slow: bool) -> io::Result<()> {
    // SAFETY: `timex` is plain numbers; all zero is a valid value of it.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = libc::ADJ_TICK;
    timex.tick = if slow { SLOW } else { NORMAL };
    // SAFETY: the pointer is to a live `timex` that the kernel reads and fills.
    if unsafe { libc::adjtimex(&raw mut timex) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
