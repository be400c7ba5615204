//! The hardware watchdog (`linux/watchdog.h`).
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// `WDIOC_SETTIMEOUT`: `_IOWR('W', 6, int)`.
const SETTIMEOUT: u32 = (3 << 30) | (4 << 16) | ((b'W' as u32) << 8) | 6;

/// An armed watchdog. It is never disarmed: when init ends or hangs, it fires.
#[derive(Debug)]
pub struct Watchdog(File);

impl Watchdog {
    /// Opens, and so arms, the first watchdog, and asks for a timeout in seconds. Returns the one
    /// that the hardware took.
    pub fn open(seconds: i32) -> io::Result<(Self, i32)> {
        let file = OpenOptions::new().write(true).open("/dev/watchdog0")?;
        let mut timeout: libc::c_int = seconds;
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int through the pointer, which points to one.
        // A driver that refuses keeps its own timeout.
        unsafe { libc::ioctl(file.as_raw_fd(), SETTIMEOUT as _, &raw mut timeout) };
        Ok((Self(file), timeout))
    }

    /// Feeds it. Any byte but `V` does.
    pub fn feed(&self) {
        // A watchdog that takes no food will fire; nothing better is left to do here.
        let _ = (&self.0).write(b".");
    }
}
