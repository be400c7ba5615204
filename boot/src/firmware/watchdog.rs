//! The hardware watchdog that the board names, armed just before the kernel starts: the
//! firmware's own ends there.

use super::{raw, say};
use holdfast_boot::i6300esb::{self, ArmError, Device};
use holdfast_boot::{bcm2835, fdt, itco};
use holdfast_core::header::Watchdog;
use uefi::boot::{self, ScopedProtocol};
use uefi::proto::pci::PciIoAddress;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;

/// Arms it and says so; the start goes on without it. Which one is armed.
pub fn arm(watchdog: Watchdog, seconds: u16) -> Option<Watchdog> {
    match watchdog {
        Watchdog::None => {
            say!("no hardware watchdog on this board: a hang needs a hand");
            return None;
        }
        Watchdog::I6300esb => match arm_i6300esb(seconds) {
            Ok(()) => say!("watchdog i6300esb armed, {seconds} s"),
            Err(e) => {
                say!("watchdog i6300esb not armed: {e}");
                return None;
            }
        },
        Watchdog::Itco => match arm_itco(seconds) {
            Ok(()) => say!("watchdog itco armed, {seconds} s"),
            Err(e) => {
                say!("watchdog itco not armed: {e}");
                return None;
            }
        },
        Watchdog::Bcm2835 => match arm_bcm2835(seconds) {
            Some(seconds) => say!("watchdog bcm2835 armed, {seconds} s"),
            None => {
                say!("watchdog bcm2835 not armed: no board of its kind");
                return None;
            }
        },
        Watchdog::Unknown(_) => {
            say!("watchdog {watchdog} not armed: this loader does not know how");
            return None;
        }
    }
    Some(watchdog)
}

/// Only x86 has ports, and Intel's chipsets.
#[cfg(target_arch = "x86_64")]
fn arm_itco(seconds: u16) -> Result<(), itco::ArmError> {
    let handles = boot::find_handles::<PciRootBridgeIo>().unwrap_or_default();
    let first = handles.first().ok_or(itco::ArmError::Absent)?;
    let bridge = raw::open::<PciRootBridgeIo>(*first).map_err(|_| itco::ArmError::Access)?;
    itco::arm(&mut PciChipset(bridge), seconds)
}

#[cfg(not(target_arch = "x86_64"))]
fn arm_itco(_: u16) -> Result<(), itco::ArmError> {
    Err(itco::ArmError::Absent)
}

fn arm_bcm2835(seconds: u16) -> Option<u16> {
    let base = bcm2835::base(fdt::compatible(raw::device_tree()?))?;
    Some(bcm2835::arm(&mut raw::Registers, base, seconds))
}

impl bcm2835::Memory for raw::Registers {
    fn read(&mut self, address: u64) -> u32 {
        self.read32(address)
    }
    fn write(&mut self, address: u64, value: u32) {
        self.write32(address, value);
    }
}

#[cfg(target_arch = "x86_64")]
struct PciChipset(ScopedProtocol<PciRootBridgeIo>);

#[cfg(target_arch = "x86_64")]
impl itco::Chipset for PciChipset {
    fn config32(
        &mut self,
        (device, function): itco::Function,
        reg: u8,
    ) -> Result<u32, itco::ArmError> {
        let address = PciIoAddress::new(0, device, function).with_register(reg);
        let read = self.0.pci().read_one(address);
        read.map_err(|_| itco::ArmError::Access)
    }
    // Ports and memory of the chipset lie outside of what the bridge's protocol lets through.
    fn port16(&mut self, port: u16) -> u16 {
        raw::port16(port)
    }
    fn set_port16(&mut self, port: u16, value: u16) {
        raw::set_port16(port, value);
    }
    fn memory32(&mut self, address: u64) -> u32 {
        raw::Registers.read32(address)
    }
    fn set_memory32(&mut self, address: u64, value: u32) {
        raw::Registers.write32(address, value);
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
