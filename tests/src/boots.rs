//! Boots that the benchmarks take the time of, and the peer they are compared with: mkosi's minimal
//! Debian, which `scripts/mkosi-peer` makes.

use anyhow::Result;
use holdfast_qemu::{Machine, MachineSpec};
use std::time::Duration;

/// The firmware's line just before it starts a boot loader: the same for everyone.
pub const LOADER: &str = "BdsDxe: starting ";
/// What of the peer stands beside our agent's first words.
pub const DEBIAN_RUNNING: &str = "mkosi's Debian to PID 1 of its root";
/// What of the peer stands beside our mesh up.
pub const DEBIAN_NETWORK: &str = "mkosi's Debian to network.target";

/// Seconds from power-on of one boot.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// The firmware starts the boot loader.
    pub loader: f64,
    /// Ours: the agent's first words; the peer: PID 1 of its root.
    pub running: f64,
    /// Ours: mesh up; the peer: network.target.
    pub network: f64,
}

/// Seconds from power-on until one of the markers is on the console.
///
/// # Errors
/// None of them comes within `limit`.
pub fn passed(machine: &mut Machine, markers: &[&str], limit: Duration) -> Result<f64> {
    Ok(machine.wait_for_any(markers, limit)?.1.as_secs_f64())
}

/// A boot of mkosi's Debian, the disk of `spec`. Its initramfs has a PID 1 of its own: the one that
/// counts comes after the root was switched to.
///
/// # Errors
/// QEMU or firmware missing; a marker that does not come within `limit`.
pub fn debian(spec: MachineSpec, limit: Duration) -> Result<Boot> {
    let mut machine = Machine::start(spec)?;
    let loader = passed(&mut machine, &[LOADER], limit)?;
    passed(
        &mut machine,
        &["initrd-switch-root.service", "Switching root"],
        limit,
    )?;
    let running = passed(
        &mut machine,
        &["running in system mode", "Welcome to Debian"],
        limit,
    )?;
    let network = passed(&mut machine, &["Reached target network.target"], limit)?;
    machine.power_cut()?;
    Ok(Boot {
        loader,
        running,
        network,
    })
}
