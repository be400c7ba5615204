//! The hardware watchdog (`linux/watchdog.h`).
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// `WDIOC_SETTIMEOUT`: `_IOWR('W', 6, int)`.
const SETTIMEOUT: u32 = (3 << 30) | (4 << 16) | ((b'W' as u32) << 8) | 6;

/// `WDIOC_GETTIMEOUT`: `_IOR('W', 7, int)`.
const GETTIMEOUT: u32 = (2 << 30) | (4 << 16) | ((b'W' as u32) << 8) | 7;

/// An armed watchdog. It is never disarmed (the letter `V` is never written, with `nowayout` or
/// without): when init ends or hangs, it fires.
#[derive(Debug)]
pub struct Watchdog(File);

impl Watchdog {
    /// Opens, and so arms, the watchdog at `path`, and asks for a timeout in seconds. Returns the
    /// one that the driver took, 0 where it does not say.
    pub fn open(path: &Path, seconds: i32) -> io::Result<(Self, i32)> {
        let file = OpenOptions::new().write(true).open(path)?;
        let mut timeout: libc::c_int = seconds;
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int through the pointer, which points to one.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), SETTIMEOUT as _, &raw mut timeout) };
        if set != 0 {
            // A driver that refuses (hardware with a shorter limit) keeps its own timeout.
            timeout = 0;
            // SAFETY: WDIOC_GETTIMEOUT writes one int through the pointer, which points to one.
            unsafe { libc::ioctl(file.as_raw_fd(), GETTIMEOUT as _, &raw mut timeout) };
        }
        Ok((Self(file), timeout))
    }

    /// Feeds it. Any byte but `V` does.
    pub fn feed(&self) {
        // A watchdog that takes no food will fire; nothing better is left to do here.
        let _ = (&self.0).write(b".");
    }
}
