//! How a command ends: exit codes, and errors that carry one.

use crate::words::plain_lines;
use std::fmt;

/// Exit codes, as `holdfast --help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed.
    Failed = 1,
    /// The command line is wrong (clap's own code too).
    Usage = 2,
    /// Lighthouse or node cannot be reached.
    Unreachable = 3,
    /// Lighthouse or node said no, or a check of ours.
    Refused = 4,
    /// The node tried the other slot and went back, or runs its rescue system.
    WentBack = 5,
    /// What was waited for did not come in time.
    TimedOut = 6,
}

/// An error with an exit code of its own; stands anywhere in an `anyhow` chain.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Failure {}

impl Exit {
    /// An error that ends the program with this code.
    pub fn error(self, message: impl Into<String>) -> anyhow::Error {
        Failure {
            exit: self,
            message: message.into(),
        }
        .into()
    }
}

/// The code that `error` ends the program with.
pub fn code_of(error: &anyhow::Error) -> u8 {
    exit_of(error) as u8
}

/// The exit code that `error` carries.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|e| e.downcast_ref::<Failure>())
        .map_or(Exit::Failed, |f| f.exit)
}

/// The error as people read it: what, then why, each said once; much of it may be a node's or the
/// lighthouse's own words.
pub fn describe(error: &anyhow::Error) -> String {
    plain_lines(&format!("holdfast: {}", words_of(error)))
}

/// What, then why, each said once.
pub fn words_of(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let words = cause.to_string();
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text += &format!("\n  because: {words}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_found_under_context_and_nothing_is_said_twice() {
        let error = Exit::Refused
            .error("no such grant")
            .context("no such grant: made up");
        assert_eq!(code_of(&error), 4);
        assert_eq!(describe(&error), "holdfast: no such grant: made up");
        let error = Exit::Unreachable
            .error("connection refused")
            .context("lighthouse h:1");
        assert_eq!(
            describe(&error),
            "holdfast: lighthouse h:1\n  because: connection refused"
        );
        assert_eq!(code_of(&anyhow::anyhow!("x")), 1);
        assert_eq!(
            describe(&anyhow::anyhow!("a\x1b[2J\nb")),
            "holdfast: a\u{fffd}[2J\nb"
        );
    }
}
