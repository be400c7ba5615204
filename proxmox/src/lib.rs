//! Holdfast's machines on Proxmox VE: its HTTP API (<https://pve.proxmox.com/pve-docs/api-viewer/>) as
//! far as they need it, and the `cidata` drive that hands them a seed.
//!
//! ```text
//! names     values that cannot hold a bad name
//! calls     what is asked, as values            answers   what came back, checked
//! machine   a machine's description as the API wants it
//! task      what a task that was started has come to
//! cidata    the drive, written by `iso`
//! tls       a server's certificate, pinned by the fingerprint that Proxmox shows
//! client    the thin part that does IO
//! ```

pub mod answers;
pub mod calls;
pub mod cidata;
mod client;
pub mod iso;
pub mod machine;
pub mod names;
pub mod task;
mod tls;
mod token;

pub use client::{Client, ClientError, file_digest};
pub use tls::{BadFingerprint, Fingerprint};
pub use token::{BadToken, Token};
