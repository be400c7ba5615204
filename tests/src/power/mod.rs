//! Power cuts, all of them: what a machine wrote is recorded, and each state that a cut could have left
//! on its disk is made again and judged.
//!
//! ```text
//! log     the record of writes and flushes, as read from its file   (pure)
//! cuts    which states a cut can leave                               (pure)
//! image   a disk at one of them: pages over a base image
//! judge   what loader, init and agent, their own code, make of it
//! replay  all cuts of a record through the judge
//! samples which of them to boot
//! ```

pub mod cuts;
pub mod image;
pub mod judge;
pub mod log;
pub mod replay;
pub mod samples;
