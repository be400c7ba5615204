//! The lighthouse: admits nodes, hands out members and documents, keeps bundles, splices control
//! streams (decisions 7, 8 and 9).
//!
//! It holds no key that nodes trust for anything but being this lighthouse: it can withhold, it
//! cannot forge. What it hands out is verified by whoever reads it.

#[cfg(test)]
extern crate self as holdfast_lighthouse;

pub mod admission;
mod blobs;
mod dir;
mod error;
mod guard;
mod held;
mod http;
pub mod install;
mod limits;
mod mesh;
mod others;
mod rate;
mod refusal;
mod registry;
pub mod rows;
mod run;
mod server;
mod splice;
pub mod store;
#[cfg(test)]
#[allow(dead_code, reason = "the integration tests use the rest")]
mod testing;

pub use dir::{ClusterFile, Keys, LighthouseDir};
pub use error::LighthouseError;
pub use held::{Held, HeldError};
pub use refusal::Refusal;
pub use registry::{Live, Registry, Who, unix_now};
pub use run::{Config, Lighthouse};
