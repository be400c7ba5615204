//! The UEFI loader.
#![cfg_attr(target_os = "uefi", no_main, no_std)]
#[cfg(not(target_os = "uefi"))]
fn main() {}
