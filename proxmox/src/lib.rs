//! Holdfast's machines on Proxmox VE: its HTTP API (<https://pve.proxmox.com/pve-docs/api-viewer/>) as
//! far as they need it, and the `cidata` drive that hands them a seed.
//!
//! ```text
//! names     values that cannot hold a bad name
//! calls     what is asked, as values            answers   what came back, checked
//! machine   a machine's description as the API wants it
//! refusal   what Proxmox says when it says no
//! task      what a task that was started has come to
//! cidata    the drive, written by `iso`
//! client    the thin part that does IO            upload    files, in the form that Proxmox takes
//! ```

pub mod answers;
pub mod calls;
pub mod cidata;
mod client;
pub mod iso;
pub mod machine;
pub mod names;
pub mod refusal;
pub mod task;
mod token;
mod upload;

pub use client::{Client, ClientError};
pub use holdfast_tls::{BadFingerprint, Fingerprint};
pub use token::{BadToken, Token};
pub use upload::file_digest;
