//! Machines as they stand on a desk: SATA and NVMe disks, Intel's network cards, the chipset's own
//! watchdog.

use anyhow::ensure;
use holdfast_qemu::{DiskBus, MachineSpec, Nic};
use holdfast_tests::{Lab, Node, Story};
use std::time::Duration;

/// Boots, joins, and does it again.
fn joins(name: &str, hardware: fn(MachineSpec) -> MachineSpec) -> Story {
    let lab = Lab::new(name)?;
    let image = lab.build_for("x86-64", "base", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), hardware)?;
    let first = node.boot()?;
    assert_eq!((first.text("slot"), first.text("version")), ("a", "1.0.0"));
    let second = node.reboot()?;
    assert_ne!(first.text("boot_id"), second.text("boot_id"));
    assert_eq!(first.text("mesh_address"), second.text("mesh_address"));
    Ok(())
}

#[test]
fn sata_and_e1000e() -> Story {
    joins("bare_metal_sata", |spec| {
        spec.bus(DiskBus::Ahci).nic(Nic::E1000e)
    })
}

#[test]
fn nvme_and_igb() -> Story {
    joins("bare_metal_nvme", |spec| {
        spec.bus(DiskBus::Nvme).nic(Nic::Igb).itco()
    })
}

/// A kernel that hangs before its first process is reset by the timer that the loader armed.
#[test]
fn a_hanging_kernel_is_reset_by_the_chipset() -> Story {
    let lab = Lab::new("bare_metal_watchdog")?;
    let image = lab.build_for("x86-64", "test-hangs", "1.0.0")?;
    let mut node = Node::with(&lab, "n1", &image, None, |spec| {
        spec.bus(DiskBus::Ahci).itco()
    })?;
    node.machine.power_on()?;
    node.wait_for("watchdog itco armed, 60 s")?;
    let hung = node
        .machine
        .wait_for("Kernel panic", Duration::from_secs(120))?;
    let again = node
        .machine
        .wait_for("preferred slot, start 2", Duration::from_secs(300))?;
    ensure!(
        again - hung > Duration::from_secs(15),
        "it was no watchdog that reset it: {:?} after the panic",
        again - hung
    );
    Ok(())
}

/// A watchdog that the loader armed and that no driver feeds costs one start, not the machine.
#[test]
fn a_watchdog_without_a_driver_is_left_alone() -> Story {
    let lab = Lab::new("bare_metal_unfed_watchdog")?;
    let image = lab.build_for("x86-64", "test-unfed-watchdog", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        spec.bus(DiskBus::Ahci).itco()
    })?;
    node.machine.power_on()?;
    node.wait_for("watchdog itco armed, 60 s")?;
    node.wait_for("no driver feeds the watchdog that the loader armed")?;
    node.wait_for("hardware watchdog left alone")?;
    node.wait_for("agent started")?;
    // Three minutes: three times what the timer takes.
    node.machine
        .wait_for("this start counts as good", Duration::from_secs(600))?;
    ensure!(node.wait_online()?.text("slot") == "a");
    Ok(())
}
