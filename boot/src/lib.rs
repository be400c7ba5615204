//! The UEFI loader: from the firmware to the kernel of the slot that the record names.
//!
//! Pure: `options` (the kernel's command line), `payload` (digest and decoding), `i6300esb`, `itco` and
//! `bcm2835` (registers of watchdogs), `fdt` (which board this is); the slot decisions are in
//! `holdfast-core`. [`node`] is the way over one disk, from its table to its kernel, on whatever
//! [`machine::Machine`] there is: the firmware's (the program beside this library), or an image file
//! in a test that asks what the loader would start.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod bcm2835;
pub mod fdt;
pub mod i6300esb;
pub mod itco;
pub mod machine;
pub mod node;
pub mod options;
pub mod payload;
