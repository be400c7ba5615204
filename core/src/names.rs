//! Names that cannot hold a bad value.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a name was refused; carries the offending value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a {0} must not be empty")]
    Empty(&'static str),
    /// RFC 1035 allows 63 octets in a label.
    #[error("{kind} {name:?} has {len} characters; at most {max} are allowed")]
    TooLong {
        /// What kind of name.
        kind: &'static str,
        /// The refused value.
        name: String,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A character that a DNS label or Kubernetes node name cannot hold.
    #[error(
        "{kind} {name:?} holds {bad:?}; only a-z, 0-9 and '-' are allowed, and no '-' at either end"
    )]
    BadCharacter {
        /// What kind of name.
        kind: &'static str,
        /// The refused value.
        name: String,
        /// The first bad character.
        bad: char,
    },
}

fn check_label(kind: &'static str, max: usize, name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty(kind));
    }
    let len = name.chars().count();
    if len > max {
        return Err(NameError::TooLong {
            kind,
            name: name.into(),
            len,
            max,
        });
    }
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if let Some(bad) = name.chars().find(|&c| !edge(c) && c != '-') {
        return Err(NameError::BadCharacter {
            kind,
            name: name.into(),
            bad,
        });
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(NameError::BadCharacter {
            kind,
            name: name.into(),
            bad: '-',
        });
    }
    Ok(())
}

macro_rules! label {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `name`.
            ///
            /// # Errors
            /// [`NameError`] says which character or length was refused.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check_label($kind, $max, &name)?;
                Ok(Self(name))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label!(
    /// A node's name: one DNS label, also its Kubernetes node name and host name.
    NodeName, "node name", 63
);
label!(
    /// A cluster's name: one DNS label of at most 32 characters (`NODE.CLUSTER.internal`).
    ClusterName, "cluster name", 32
);
label!(
    /// A group that the policy's rules name.
    GroupName, "group", 63
);
label!(
    /// An operator's name, as the operators document and the node's log show it.
    OperatorName, "operator name", 63
);
label!(
    /// A grant's id: 26 base-32 characters made at random, or a name chosen by the operator.
    GrantId, "grant id", 63
);

/// What a node is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// k3s server (control plane).
    Server,
    /// k3s agent (worker).
    Agent,
    /// Mesh and control only.
    Bare,
}

impl Role {
    /// Whether k3s runs on such a node.
    #[must_use]
    pub fn runs_k3s(self) -> bool {
        !matches!(self, Role::Bare)
    }

    /// The word in seeds, grants and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Agent => "agent",
            Role::Bare => "bare",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "server" => Ok(Role::Server),
            "agent" => Ok(Role::Agent),
            "bare" => Ok(Role::Bare),
            other => Err(format!("role {other:?} is none of server, agent, bare")),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_dots_capitals_and_64_characters() {
        assert!(matches!(
            NodeName::new("a.b"),
            Err(NameError::BadCharacter { bad: '.', .. })
        ));
        assert!(matches!(
            NodeName::new("Pi"),
            Err(NameError::BadCharacter { bad: 'P', .. })
        ));
        assert!(matches!(
            NodeName::new("a".repeat(64)),
            Err(NameError::TooLong { .. })
        ));
        assert!(matches!(
            NodeName::new("-a"),
            Err(NameError::BadCharacter { .. })
        ));
        assert!(NodeName::new("a".repeat(63)).is_ok());
    }
}
