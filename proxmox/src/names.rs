//! Names of Proxmox VE's things, checked.

use std::fmt;
use std::str::FromStr;

/// Why a name was refused; carries it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no {kind}: {rule}")]
pub struct BadName {
    /// Of what.
    pub kind: &'static str,
    /// The refused value.
    pub value: String,
    /// What is expected.
    pub rule: &'static str,
}

fn word(text: &str, inner: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || inner.contains(c);
    let edge = |c: char| c.is_ascii_alphanumeric();
    !text.is_empty()
        && text.len() <= 100
        && text.chars().all(fits)
        && text.starts_with(edge)
        && text.ends_with(edge)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $inner:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                if word(text, $inner) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName { kind: $kind, value: text.into(), rule: $rule })
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
    };
}

name!(
    /// A node of the Proxmox cluster (format `pve-node`).
    Node, "Proxmox node", "-", "letters, digits and '-' are allowed"
);
name!(
    /// A storage (format `pve-storage-id`).
    Storage, "storage", "-_.", "letters, digits, '-', '_' and '.' are allowed"
);
name!(
    /// A network bridge.
    Bridge, "bridge", "-_.", "letters, digits, '-', '_' and '.' are allowed"
);
name!(
    /// A machine's name (format `dns-name`).
    MachineName, "machine name", "-.", "letters, digits, '-' and '.' are allowed"
);

/// A machine's number, unique in the Proxmox cluster (format `pve-vmid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct VmId(u32);

impl VmId {
    /// Checks `number`.
    ///
    /// # Errors
    /// [`BadName`]: it is below 100 or above 999999999.
    pub fn new(number: u64) -> Result<Self, BadName> {
        match u32::try_from(number) {
            Ok(n @ 100..=999_999_999) => Ok(Self(n)),
            _ => Err(BadName {
                kind: "VM id",
                value: number.to_string(),
                rule: "a number from 100 to 999999999",
            }),
        }
    }
}

impl FromStr for VmId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let number = text.parse().ok().filter(|_| !text.starts_with('+'));
        number.map_or_else(
            || {
                Err(BadName {
                    kind: "VM id",
                    value: text.into(),
                    rule: "a number from 100 to 999999999",
                })
            },
            Self::new,
        )
    }
}
impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A volume: `STORAGE:KIND/FILE`, or what a storage calls its own disks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Volume {
    storage: Storage,
    rest: String,
}

impl Volume {
    /// A file of the kind `iso` or `import` on a storage.
    #[must_use]
    pub fn file(storage: &Storage, kind: &str, file: &str) -> Self {
        Self {
            storage: storage.clone(),
            rest: format!("{kind}/{file}"),
        }
    }

    /// On which storage.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The file's name of an `iso` or `import` volume.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.rest.rsplit('/').next().unwrap_or(&self.rest)
    }
}

impl FromStr for Volume {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            kind: "volume",
            value: text.into(),
            rule: "STORAGE:KIND/FILE is expected, without blanks and commas",
        };
        let (storage, rest) = text.split_once(':').ok_or_else(bad)?;
        // A comma would begin another of a drive's settings.
        if rest.is_empty()
            || rest.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
        {
            return Err(bad());
        }
        Ok(Self {
            storage: storage.parse().map_err(|_| bad())?,
            rest: rest.into(),
        })
    }
}
impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.storage, self.rest)
    }
}
impl serde::Serialize for Volume {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A task's id: `UPID:NODE:PID:PSTART:STARTTIME:TYPE:ID:USER:`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upid {
    text: String,
    node: Node,
    kind: String,
}

impl Upid {
    /// Where it runs.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What it does, e.g. `qmcreate`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Upid {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            kind: "task id",
            value: text.into(),
            rule: "UPID:NODE:PID:PSTART:STARTTIME:TYPE:ID:USER: is expected",
        };
        let parts: Vec<&str> = text.split(':').collect();
        let ["UPID", node, pid, pstart, start, kind, _id, user, ""] = parts[..] else {
            return Err(bad());
        };
        let hex = |s: &str, lens: std::ops::RangeInclusive<usize>| {
            lens.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if !(clean && hex(pid, 8..=8) && hex(pstart, 8..=9) && hex(start, 8..=8))
            || kind.is_empty()
            || user.is_empty()
        {
            return Err(bad());
        }
        Ok(Self {
            text: text.into(),
            node: node.parse().map_err(|_| bad())?,
            kind: kind.into(),
        })
    }
}
impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_numbers() {
        assert!("pve-1".parse::<Node>().is_ok());
        for bad in ["", "-a", "a/b", "a b", "..", "a,b"] {
            assert!(bad.parse::<Node>().is_err(), "{bad}");
            assert!(bad.parse::<Storage>().is_err(), "{bad}");
        }
        assert!("100".parse::<VmId>().is_ok());
        for bad in ["99", "1000000000", "+100", "n1", ""] {
            assert!(bad.parse::<VmId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes() {
        let iso: Volume = "local:iso/holdfast-101-n1.iso".parse().unwrap();
        assert_eq!(iso.file_name(), "holdfast-101-n1.iso");
        assert_eq!(
            iso,
            Volume::file(iso.storage(), "iso", "holdfast-101-n1.iso")
        );
        for bad in ["local", "local:", ":x", "local:a,b", "local:a b"] {
            assert!(bad.parse::<Volume>().is_err(), "{bad}");
        }
    }

    #[test]
    fn task_ids() {
        let good = "UPID:pve:0001A2B3:00C0FFEE:65A0B1C2:qmcreate:101:op@pve!holdfast:";
        let upid: Upid = good.parse().unwrap();
        assert_eq!((upid.node().as_str(), upid.kind()), ("pve", "qmcreate"));
        for bad in [
            "",
            "UPID:pve:1:2:3:qmcreate:101:u@pve:",
            "UPID:pve:0001A2B3:00C0FFEE:65A0B1C2:qmcreate:101:u@pve",
            "UPID:p/v:0001A2B3:00C0FFEE:65A0B1C2:qmcreate:101:u@pve:",
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in ".{0,60}") {
            if let Ok(v) = text.parse::<Volume>() { prop_assert_eq!(v.to_string(), text.clone()); }
            if let Ok(u) = text.parse::<Upid>() { prop_assert_eq!(u.to_string(), text); }
        }
    }
}
