//! The hardware watchdog that the board names, armed just before the kernel starts: the
//! firmware's own ends there.

use super::{raw, say};
use crate::i6300esb::{self, ArmError, Device};
use holdfast_core::header::Watchdog;
use uefi::boot::{self, ScopedProtocol};
use uefi::proto::pci::PciIoAddress;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;

/// Arms it and says so; the start goes on without it.
pub fn arm(watchdog: Watchdog, seconds: u16) {
    match watchdog {
        Watchdog::None => say!("no hardware watchdog on this board: a hang needs a hand"),
        Watchdog::I6300esb => match arm_i6300esb(seconds) {
            Ok(()) => say!("watchdog i6300esb armed, {seconds} s"),
            Err(e) => say!("watchdog i6300esb not armed: {e}"),
        },
        Watchdog::Itco | Watchdog::Bcm2835 | Watchdog::Unknown(_) => {
            say!("watchdog {watchdog} not armed: this loader does not know how");
        }
    }
}

fn arm_i6300esb(seconds: u16) -> Result<(), ArmError> {
    let mut device = find(i6300esb::ID).ok_or(ArmError::Absent)?;
    i6300esb::arm(&mut device, seconds)
}

struct PciDevice {
    bridge: ScopedProtocol<PciRootBridgeIo>,
    address: PciIoAddress,
}

fn find(id: u32) -> Option<PciDevice> {
    for handle in boot::find_handles::<PciRootBridgeIo>().ok()? {
        let Ok(mut bridge) = raw::open::<PciRootBridgeIo>(handle) else {
            continue;
        };
        let Ok(tree) = bridge.enumerate() else {
            continue;
        };
        let hit = tree.iter().find(|a| {
            bridge
                .pci()
                .read_one::<u32>(a.with_register(0))
                .is_ok_and(|found| found == id)
        });
        if let Some(address) = hit.copied() {
            return Some(PciDevice { bridge, address });
        }
    }
    None
}

fn access<T>(result: uefi::Result<T>) -> Result<T, ArmError> {
    result.map_err(|_| ArmError::Access)
}

impl Device for PciDevice {
    fn config8(&mut self, reg: u8) -> Result<u8, ArmError> {
        access(self.bridge.pci().read_one(self.address.with_register(reg)))
    }
    fn config32(&mut self, reg: u8) -> Result<u32, ArmError> {
        access(self.bridge.pci().read_one(self.address.with_register(reg)))
    }
    fn set_config8(&mut self, reg: u8, value: u8) -> Result<(), ArmError> {
        access(
            self.bridge
                .pci()
                .write_one(self.address.with_register(reg), value),
        )
    }
    fn set_config16(&mut self, reg: u8, value: u16) -> Result<(), ArmError> {
        access(
            self.bridge
                .pci()
                .write_one(self.address.with_register(reg), value),
        )
    }
    fn set_memory16(&mut self, address: u64, value: u16) -> Result<(), ArmError> {
        access(self.bridge.memory().write_one(address, value))
    }
    fn set_memory32(&mut self, address: u64, value: u32) -> Result<(), ArmError> {
        access(self.bridge.memory().write_one(address, value))
    }
}
