//! The UEFI loader: from the firmware to the kernel of the slot that the record names.
//!
//! Pure: `options` (the kernel's command line), `payload` (digest and decoding), `i6300esb`, `itco` and
//! `bcm2835` (registers of watchdogs), `fdt` (which board this is); the slot decisions are in `holdfast-core`. Effects: `firmware`
//! (protocols, disks, memory) and `node` (one disk of a node, from its table to its kernel).
#![cfg_attr(target_os = "uefi", no_main, no_std)]
// On the host only the tests of the pure modules use them.
#![cfg_attr(not(target_os = "uefi"), allow(dead_code))]

extern crate alloc;

mod bcm2835;
mod fdt;
mod i6300esb;
// Only x86 has Intel's chipsets.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod itco;
mod options;
mod payload;

#[cfg(target_os = "uefi")]
mod firmware;
#[cfg(target_os = "uefi")]
mod node;

#[cfg(target_os = "uefi")]
mod start {
    use crate::firmware::disks::{self, Disk};
    use crate::firmware::{keys, power, random, say};
    use crate::node::Node;
    use alloc::vec::Vec;
    use holdfast_core::loader_keys::LoaderKeys;
    use uefi::prelude::*;

    #[entry]
    fn main() -> Status {
        say!("loader {}", env!("CARGO_PKG_VERSION"));
        match keys::read() {
            Ok(keys) => {
                // The disk of the loader is the node's, as a rule. Firmware that boots fast has
                // not even looked for others.
                let mut seen = Vec::new();
                try_all(disks::find(&mut seen), &keys);
                disks::connect_all();
                try_all(disks::find(&mut seen), &keys);
                say!("nothing on this machine's disks can be started");
                say!("flash the disk anew, or attach one with a working image of this cluster");
            }
            Err(e) => {
                say!("{e}");
                say!("this loader was not put in place by 'holdfast build': flash a built image");
            }
        }
        power::reset_after(60)
    }

    /// Comes back only when nothing on them can be started.
    fn try_all(disks: Vec<Disk>, keys: &LoaderKeys) {
        for disk in disks {
            let name = disk.name();
            match Node::open(disk, keys) {
                // An id for each: init must not take a disk that was asked in vain for its own.
                Ok(mut node) => say!("{name}: {}", node.start(random::boot_id())),
                Err(e) => say!("{name}: {e}"),
            }
        }
    }
}

/// The loader runs on firmware; on the host only its tests do.
#[cfg(not(target_os = "uefi"))]
fn main() {
    println!("build for x86_64-unknown-uefi or aarch64-unknown-uefi");
}
