//! Verbs for stories: a [`Lab`] has a cluster and a lighthouse, a [`Node`] is a virtual machine in
//! it. A story drives both as an operator would, with the `holdfast` command, and waits for
//! conditions. When it fails, console logs stay.

pub mod boots;
pub mod command;
pub mod emulated;
mod forged;
mod lab;
mod lighthouse;
mod member;
mod node;
pub mod offline;
pub mod power;
pub mod seedvolume;
pub mod systemd;
mod until;

pub use command::{Holdfast, Outcome};
pub use forged::ForgedStore;
pub use lab::{Built, Lab};
pub use lighthouse::LighthouseProcess;
pub use member::{Attempt, Connection, ProbeMember};
pub use node::{Node, NodeView};
pub use until::{until, until_some};

/// What stories return: the first failure with its context.
pub type Story = anyhow::Result<()>;
