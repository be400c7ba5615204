//! Formats and decisions of Holdfast, without files, sockets or clocks.
//!
//! What the loader shares with the running system is `no_std`; the rest needs the feature `std`.
#![cfg_attr(not(any(feature = "std", test)), no_std)]

extern crate alloc;

pub mod bytes;
pub mod gpt;
pub mod guid;
pub mod header;
pub mod layout;
pub mod loader_keys;
pub mod releases;
pub mod slots;
pub mod text;

#[cfg(feature = "std")]
pub mod access;
#[cfg(feature = "std")]
pub mod api;
#[cfg(feature = "std")]
pub mod cluster;
#[cfg(feature = "std")]
pub mod control;
#[cfg(feature = "std")]
pub mod documents;
#[cfg(feature = "std")]
pub mod grant;
#[cfg(feature = "std")]
pub mod image;
#[cfg(feature = "std")]
pub mod ipc;
#[cfg(feature = "std")]
pub mod keys;
#[cfg(feature = "std")]
pub mod manifest;
#[cfg(feature = "std")]
pub mod names;
#[cfg(feature = "std")]
pub mod peers;
#[cfg(feature = "std")]
pub mod seed;
#[cfg(feature = "std")]
pub mod signed;
#[cfg(feature = "std")]
pub mod state;
#[cfg(feature = "std")]
pub mod status;
