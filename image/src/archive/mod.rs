//! The Debian archive: from a mirror's signed index to verified packages.

pub mod depend;
pub mod fetch;
pub mod keyring;
pub mod mirror;
pub mod packages;
pub mod release;
pub mod stanza;
pub mod version;
