//! The loader as a UEFI program: the firmware's protocols, disks and memory around `holdfast_boot`.
#![cfg_attr(target_os = "uefi", no_main, no_std)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod firmware;

#[cfg(target_os = "uefi")]
mod start {
    use crate::firmware::disks::{self, Disk};
    use crate::firmware::machine::Uefi;
    use crate::firmware::{keys, power, random, say};
    use alloc::vec::Vec;
    use holdfast_boot::node::Node;
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
            let name = alloc::string::String::from(disk.name());
            match Node::open(Uefi(disk), keys) {
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
