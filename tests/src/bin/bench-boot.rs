//! `make bench-boot`: how long a node takes from power-on, beside mkosi's Debian and a bare
//! Kubernetes machine, on this computer, under emulation, in turns. Prints a table and, as its last
//! line, the figures as JSON.

use anyhow::{Context as _, Result};
use holdfast_qemu::{Accel, Machine, MachineSpec};
use holdfast_tests::{Built, Lab, Node, until_some};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one boot may take on a busy host.
const BOOT: Duration = Duration::from_secs(240);
/// How long until Kubernetes is Ready there.
const READY: Duration = Duration::from_secs(600);
/// The firmware's line just before it starts a boot loader: the same for everyone.
const LOADER: &str = "BdsDxe: starting ";
/// Disk of the machines, in bytes.
const DISK: u64 = 8 << 30;
/// Memory of the machines that run Kubernetes, in MiB.
const KUBE_MEMORY: u32 = 3072;

struct Arguments {
    /// mkosi's raw disk.
    peer: PathBuf,
    /// The k3s stand-in.
    kube: PathBuf,
    /// Folder of the bare machine: `vmlinuz` and `disk.img`.
    bare: PathBuf,
    runs: u32,
    kube_runs: u32,
}

fn arguments() -> Result<Arguments> {
    let mut words = std::env::args().skip(1);
    let mut take = |what: &str| {
        words.next().with_context(|| {
            format!("{what} is missing: bench-boot PEER-IMAGE K3S BARE-DIR [RUNS [KUBE-RUNS]]")
        })
    };
    let (peer, kube, bare) = (take("PEER-IMAGE")?, take("K3S")?, take("BARE-DIR")?);
    let mut number = |default: u32| words.next().map_or(Ok(default), |w| w.parse().context(w));
    Ok(Arguments {
        peer: peer.into(),
        kube: kube.into(),
        bare: bare.into(),
        runs: number(3)?,
        kube_runs: number(2)?,
    })
}

/// Seconds from power-on of one boot.
#[derive(Debug, Clone, Copy)]
struct Boot {
    loader: f64,
    /// Ours: the agent's first words; the peer: PID 1 of its root.
    running: f64,
    /// Ours: mesh up; the peer: network.target.
    network: f64,
}

fn passed(machine: &mut Machine, markers: &[&str], limit: Duration) -> Result<f64> {
    Ok(machine.wait_for_any(markers, limit)?.1.as_secs_f64())
}

/// One boot of ours, from power-on to mesh up; the machine stays on.
fn our_boot(node: &mut Node) -> Result<Boot> {
    node.machine.power_on()?;
    let machine = &mut node.machine;
    let loader = passed(machine, &[LOADER], BOOT)?;
    passed(machine, &["holdfast-init: verity root mounted"], BOOT)?;
    let running = passed(machine, &["holdfast: agent "], BOOT)?;
    let network = passed(machine, &["holdfast: mesh up"], BOOT)?;
    Ok(Boot { loader, running, network })
}

/// A first boot with a fresh seed, what the node says of its memory, and a second boot.
fn ours(lab: &Lab, name: &str, image: &Built) -> Result<(Boot, Boot, f64)> {
    let seed = lab.seed(name, "bare", &[])?;
    let mut node = Node::with(lab, name, image, Some(&seed), |spec| {
        spec.accel(Accel::Tcg).disk_bytes(DISK)
    })?;
    let first = our_boot(&mut node)?;
    let memory = until_some("the node tells its memory", BOOT, || {
        let status = lab.holdfast.json(&["status", name]).map_err(|e| format!("{e:#}"))?;
        let kib = |who: &str| status["memory_kib"][who].as_f64();
        kib("init").zip(kib("agent")).ok_or_else(|| status.to_string())
    })?;
    node.power_cut()?;
    let second = our_boot(&mut node)?;
    node.power_cut()?;
    Ok((first, second, (memory.0 + memory.1) / 1024.0))
}

/// A first boot of mkosi's Debian. Its initramfs has a PID 1 of its own: the one that counts comes
/// after the root was switched to.
fn debian(lab: &Lab, name: &str, image: &Path) -> Result<Boot> {
    let spec = MachineSpec::new(name)
        .accel(Accel::Tcg)
        .image(image)
        .disk_bytes(DISK)
        .dir(&lab.dir().join("vm").join(name));
    let mut machine = Machine::start(spec)?;
    let loader = passed(&mut machine, &[LOADER], BOOT)?;
    passed(&mut machine, &["initrd-switch-root.service", "Switching root"], BOOT)?;
    let running = passed(&mut machine, &["running in system mode", "Welcome to Debian"], BOOT)?;
    let network = passed(&mut machine, &["Reached target network.target"], BOOT)?;
    machine.power_cut()?;
    Ok(Boot { loader, running, network })
}

/// Our first boot to node Ready: a server of its own.
fn our_ready(lab: &Lab, name: &str, image: &Built) -> Result<f64> {
    let seed = lab.seed(name, "server", &[])?;
    let mut node = Node::with(lab, name, image, Some(&seed), |spec| {
        spec.accel(Accel::Tcg).memory_mib(KUBE_MEMORY).disk_bytes(DISK)
    })?;
    node.machine.power_on()?;
    let ready = passed(&mut node.machine, &["holdfast: k3s ready"], READY)?;
    node.power_cut()?;
    Ok(ready)
}

/// The bare machine's boot to node Ready. Its kernel is handed over by QEMU: no firmware, no loader.
fn bare_ready(lab: &Lab, name: &str, bare: &Path) -> Result<f64> {
    let line = "root=/dev/vda rw init=/usr/sbin/init console=ttyS0 quiet panic=10 bare.mode=server";
    let spec = MachineSpec::new(name)
        .accel(Accel::Tcg)
        .memory_mib(KUBE_MEMORY)
        .image(&bare.join("disk.img"))
        .dir(&lab.dir().join("vm").join(name));
    let _ = line;
    let mut machine = Machine::start(spec)?;
    let ready = passed(&mut machine, &["is Ready"], READY)?;
    machine.power_cut()?;
    Ok(ready)
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.into_iter().collect();
    all.sort_by(f64::total_cmp);
    match all.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => all[n / 2],
        n => f64::midpoint(all[n / 2 - 1], all[n / 2]),
    }
}

fn main() -> Result<()> {
    Ok(())
}
