//! Client of the lighthouse's API ([`holdfast_core::api`]): what nodes and operators call.
//!
//! One [`LighthouseClient`] stands for one lighthouse: its addresses are tried in order, its key
//! is pinned. Someone who knows several lighthouses holds several clients.

mod blobs;
mod calls;
mod error;
mod standing;
mod successor;
mod transport;

pub use blobs::BlobStream;
pub use error::{Attempt, ClientError};
pub use standing::{Standing, StandingEvent};
pub use successor::{SuccessorError, Trust, succeed, successor};
pub use transport::{LighthouseClient, Stream};
