//! Why something last changed: a code for programs, a few words for people, a count for order.

use crate::text::Text;
use core::fmt;

/// What changed a slot, or why something was started. Codes that a newer version wrote are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $n:literal, $id:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($n);)*

            /// A short name for programs, `unknown` for a newer version's code.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self.0 { $($n => $id,)* _ => "unknown" }
            }
        }
        impl fmt::Display for Code {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 { $($n => f.write_str($text),)* n => write!(f, "reason {n}") }
            }
        }
    };
}

codes! {
    /// Nothing happened yet.
    NONE = 0, "none", "nothing yet";
    /// Came with the image that was flashed.
    FACTORY = 1, "factory", "came with the flashed image";
    /// Being overwritten.
    WRITING = 2, "writing", "being written";
    /// Written whole, to be tried.
    INSTALLED = 3, "installed", "written, to be tried";
    /// Proven and committed.
    COMMITTED = 4, "committed", "proven and committed";
    /// The operator asked for this slot again.
    RETRIED = 5, "retried", "to be tried again on request";
    /// Started as often as it was allowed, never committed.
    TRIES_USED_UP = 6, "tries-used-up", "tries used up without a commit";
    /// The gate did not hold before the deadline, or init gave the trial up.
    GATE_FAILED = 7, "gate-failed", "the trial failed";
    /// Header or payload does not verify.
    DOES_NOT_VERIFY = 8, "does-not-verify", "does not verify";
    /// Started several times without staying up.
    DOES_NOT_STAY_UP = 9, "does-not-stay-up", "did not stay up in 3 starts";
    /// The record was lost and made anew from the header.
    REBUILT = 10, "rebuilt", "record made anew from the slot's header";
    /// Declared bad by the running system.
    MARKED_BAD = 11, "marked-bad", "declared bad";
    /// Started because it is on trial.
    ON_TRIAL = 12, "on-trial", "on trial";
    /// Started because it is the preferred slot.
    PREFERRED = 13, "preferred", "preferred slot";
    /// Started because the preferred slot would not do.
    OTHER_GOOD = 14, "other-good", "the other good slot";
    /// Rescue was asked for.
    RESCUE_REQUESTED = 15, "rescue-requested", "rescue was asked for";
    /// Rescue, because no slot is left to start.
    NO_SLOT_LEFT = 16, "no-slot-left", "no slot left to start";
    /// One more try after rescue.
    TRIED_AGAIN = 17, "tried-again", "one more try after rescue";
    /// This disk was an installer and has done its work.
    RETIRED = 18, "retired", "this disk installed the system on another one and starts nothing";
    /// The running system gave itself up.
    GAVE_UP = 19, "gave-up", "gave itself up";
}

/// A code with its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// What happened.
    pub code: Code,
    /// The record's count of starts when it happened: orders reasons, tells how long ago.
    pub at_boot: u64,
    /// Details for people; may be empty.
    pub detail: Text<63>,
}

impl Reason {
    /// Nothing happened yet.
    pub const NONE: Self = Self {
        code: Code::NONE,
        at_boot: 0,
        detail: Text::EMPTY,
    };
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.detail)
        }
    }
}
