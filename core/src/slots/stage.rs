//! How far a start came.

use core::fmt;

/// A stage of a start; one that only a newer version knows counts as later than all known ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stage(pub u8);

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident = $n:literal, $id:literal, $missing:literal;)*) => {
        impl Stage {
            $($(#[$doc])* pub const $name: Self = Self($n);)*

            /// A short name for programs, `unknown` for a newer version's stage.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self.0 { $($n => $id,)* _ => "unknown" }
            }

            /// The stage of this name.
            #[must_use]
            pub fn from_id(id: &str) -> Option<Self> {
                [$(Self($n)),*].into_iter().find(|s| s.id() == id)
            }

            /// What did not happen any more, in words.
            #[must_use]
            pub const fn missing(self) -> &'static str {
                match self.0 { $($n => $missing,)* _ => "a later stage" }
            }
        }
    };
}

stages! {
    /// The kernel was started; init said nothing.
    KERNEL = 0, "kernel", "init did not start, or found no disk";
    /// Init runs on this disk.
    INIT = 1, "init", "the root was not mounted";
    /// The verity root is mounted.
    ROOT = 2, "root", "the agent did not speak";
    /// The agent spoke.
    AGENT = 3, "agent", "no network";
    /// An uplink has an address.
    NETWORK = 4, "network", "no mesh";
    /// A lighthouse answered.
    MESH = 5, "mesh", "control did not answer";
    /// A control request was answered.
    CONTROL = 6, "control", "k3s was not Ready in time";
    /// It was committed, or up for minutes.
    UP = 7, "up", "it did not last";
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {}: {}", self.id(), self.missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_fits_into_a_reason() {
        for n in 0..=9 {
            let text = crate::text::Text::<63>::exact(&std::format!("{}", Stage(n)));
            assert!(text.is_some(), "{}", Stage(n));
        }
        assert_eq!(Stage::from_id("mesh"), Some(Stage::MESH));
        assert!(Stage(200) > Stage::UP);
    }
}
