//! PID 1 writes to the kernel's log only: it never blocks on another process, and survives on the
//! console, in pstore and in the log child's store.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// Severity, as `syslog(2)` numbers it.
#[derive(Debug, Clone, Copy)]
pub enum Level {
    /// The node cannot do its work.
    Error = 3,
    /// An operator should know.
    Warning = 4,
    /// Worth a line on the console.
    Notice = 5,
}

/// Writes one line. The kernel cuts a record near 1 kB and escapes what is not printable.
pub fn log(level: Level, message: impl Display) {
    let line = format!("<{}>holdfast-init: {message}\n", level as u8);
    // One write is one record; before /dev is mounted there is nobody to tell.
    if let Ok(mut kmsg) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = kmsg.write_all(line.as_bytes());
    }
}

/// [`Level::Notice`].
pub fn notice(message: impl Display) {
    log(Level::Notice, message);
}

/// [`Level::Warning`].
pub fn warning(message: impl Display) {
    log(Level::Warning, message);
}

/// [`Level::Error`].
pub fn error(message: impl Display) {
    log(Level::Error, message);
}
