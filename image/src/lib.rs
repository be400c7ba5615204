//! Holdfast's image builder: Debian packages, a kernel and two binaries in, a disk image and an
//! update bundle out. It needs no root, no loop devices and no container engine; the same inputs
//! give the same bytes.
//!
//! [`lock::lock`] pins a recipe's packages, [`build`] makes an image of them.

pub mod archive;
pub mod board;
mod build;
mod bundle;
pub mod cache;
pub mod check;
mod deb;
pub mod definition;
pub mod digest;
mod disk;
mod error;
pub mod lock;
mod modules;
pub mod near;
mod pack;
mod payload;
mod progress;
pub mod recipe;
pub mod report;
mod request;
mod root;
mod sbom;

pub use board::Board;
pub use build::build;
pub use cache::Cache;
pub use error::{Error, Result};
pub use lock::{Lock, Sources, lock};
pub use progress::{Event, Progress, Silent};
pub use recipe::Recipe;
pub use request::{
    Binaries, BuildReport, BuildRequest, Outputs, Relock, Signing, Sizes, StepReport,
};
