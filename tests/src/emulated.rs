//! The boards that QEMU has a machine for, and how each is run there.

use crate::lab::{Built, Lab};
use crate::node::{DISK, Node};
use crate::seedvolume;
use anyhow::{Context as _, Result};
use holdfast_qemu::{Accel, DiskBus, MachineSpec, Nic, Platform};
use std::path::Path;
use std::time::Duration;

/// How long a boot may take: one emulated thread for four processors, and a card that reads 1 MiB/s,
/// on a busy host.
pub const BOOT: Duration = Duration::from_secs(400);

/// A board and the machine that QEMU has for it.
#[derive(Debug, Clone, Copy)]
pub struct Emulated {
    /// The board's name.
    pub board: &'static str,
    /// QEMU has a network card for it.
    pub network: bool,
    /// Options of its build: QEMU's watchdog of a Raspberry Pi fires as soon as it is armed.
    options: &'static [&'static str],
    machine: fn(MachineSpec) -> MachineSpec,
}

/// One board for each kind of firmware.
pub const EMULATED: [Emulated; 5] = [
    Emulated {
        board: "proxmox",
        network: true,
        options: &[],
        machine: |spec| spec,
    },
    Emulated {
        board: "x86-64",
        network: true,
        options: &[],
        machine: |spec| spec.bus(DiskBus::Nvme).nic(Nic::Igb),
    },
    Emulated {
        board: "arm64",
        network: true,
        options: &[],
        machine: |spec| spec.platform(Platform::Virt),
    },
    Emulated {
        board: "rpi3",
        network: true,
        options: &["--no-watchdog"],
        machine: |spec| spec.platform(Platform::Raspi3b),
    },
    Emulated {
        board: "rpi4",
        network: false,
        options: &["--no-watchdog"],
        machine: |spec| spec.platform(Platform::Raspi4b),
    },
];

impl Emulated {
    /// Builds the recipe for this board.
    ///
    /// # Errors
    /// The build fails.
    pub fn build(&self, lab: &Lab, recipe: &str, version: &str) -> Result<Built> {
        lab.build_board(self.board, recipe, version, self.options)
    }

    /// A machine of this kind for another system's disk, else like a node's: what boots are compared on.
    #[must_use]
    pub fn peer(&self, lab: &Lab, name: &str, image: &Path) -> MachineSpec {
        let spec = MachineSpec::new(name)
            .image(image)
            .disk_bytes(DISK)
            .dir(&lab.dir().join("vm").join(name));
        (self.machine)(spec.accel(Accel::Tcg))
    }

    /// A machine of this kind with `image`, and a seed for the board on its seed volume, as a laptop
    /// would put it there.
    ///
    /// # Errors
    /// QEMU or firmware missing; the disk cannot be written.
    pub fn node(&self, lab: &Lab, name: &str, image: &Built) -> Result<Node> {
        // emulated on every computer, so that boards can be compared
        let node = Node::with(lab, name, image, None, |spec| {
            (self.machine)(spec.accel(Accel::Tcg))
        })?;
        let seed = std::fs::read(lab.seed(name, "bare", &["--board", self.board])?)?;
        let disk = node.machine.disk().context("no disk")?;
        seedvolume::put(disk, "seed.toml", &seed)?;
        Ok(node)
    }
}
