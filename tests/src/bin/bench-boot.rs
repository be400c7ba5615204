//! `make bench-boot`: how long a node takes from power-on, beside mkosi's Debian and a bare
//! Kubernetes machine, on this computer, under emulation, in turns. Prints a table and, as its last
//! line, the figures as JSON.

use anyhow::{Context as _, Result};
use holdfast_qemu::{Accel, DiskBus, Machine, MachineSpec};
use holdfast_tests::boots::{Boot, DEBIAN_NETWORK, DEBIAN_RUNNING, LOADER, debian, passed};
use holdfast_tests::{Built, Lab, Node, until_some};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one boot may take on a busy host.
const BOOT: Duration = Duration::from_secs(240);
/// How long until Kubernetes is Ready there.
const READY: Duration = Duration::from_secs(600);
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

/// One boot of ours, from power-on to mesh up; the machine stays on.
fn our_boot(node: &mut Node) -> Result<Boot> {
    node.machine.power_on()?;
    let machine = &mut node.machine;
    let loader = passed(machine, &[LOADER], BOOT)?;
    passed(machine, &["holdfast-init: verity root mounted"], BOOT)?;
    let running = passed(machine, &["holdfast: agent "], BOOT)?;
    let network = passed(machine, &["holdfast: mesh up"], BOOT)?;
    Ok(Boot {
        loader,
        running,
        network,
    })
}

/// A first boot with a fresh seed, what the node says of its memory, and a second boot.
fn ours(lab: &Lab, name: &str, image: &Built) -> Result<(Boot, Boot, f64)> {
    let seed = lab.seed(name, "bare", &[])?;
    let mut node = Node::with(lab, name, image, Some(&seed), |spec| {
        spec.accel(Accel::Tcg).disk_bytes(DISK)
    })?;
    let first = our_boot(&mut node)?;
    let memory = until_some("the node tells its memory", BOOT, || {
        let status = lab
            .holdfast
            .json(&["status", name])
            .map_err(|e| format!("{e:#}"))?;
        let kib = |who: &str| status["memory"][who].as_f64();
        kib("init_kib")
            .zip(kib("agent_kib"))
            .ok_or_else(|| status.to_string())
    })?;
    node.power_cut()?;
    let second = our_boot(&mut node)?;
    node.power_cut()?;
    Ok((first, second, (memory.0 + memory.1) * 1024.0 / 1e6))
}

/// A first boot of mkosi's Debian.
fn debian_boot(lab: &Lab, name: &str, image: &Path) -> Result<Boot> {
    let spec = MachineSpec::new(name)
        .accel(Accel::Tcg)
        .image(image)
        .disk_bytes(DISK)
        .dir(&lab.dir().join("vm").join(name));
    debian(spec, BOOT)
}

/// Our first boot to node Ready: a server of its own.
fn our_ready(lab: &Lab, name: &str, image: &Built) -> Result<f64> {
    let seed = lab.seed(name, "server", &[])?;
    let mut node = Node::with(lab, name, image, Some(&seed), |spec| {
        spec.accel(Accel::Tcg)
            .memory_mib(KUBE_MEMORY)
            .disk_bytes(DISK)
    })?;
    node.machine.power_on()?;
    let ready = passed(&mut node.machine, &["holdfast: k3s ready"], READY)?;
    node.power_cut()?;
    Ok(ready)
}

/// The bare machine's boot to node Ready: the same firmware starts its kernel, as a loader would.
fn bare_ready(lab: &Lab, name: &str, bare: &Path) -> Result<f64> {
    // Its kernel has NVMe built in, and no initramfs.
    let line =
        "root=/dev/nvme0n1 rw init=/usr/sbin/init console=ttyS0 quiet panic=10 bare.mode=server";
    let spec = MachineSpec::new(name)
        .accel(Accel::Tcg)
        .memory_mib(KUBE_MEMORY)
        .image(&bare.join("disk.img"))
        .bus(DiskBus::Nvme)
        .firmware_kernel(&bare.join("vmlinuz"), line)
        .dir(&lab.dir().join("vm").join(name));
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

/// One line of the table and one object of the JSON.
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    /// Who it is compared with, and their value in the same unit.
    peer: Option<(&'static str, f64)>,
}

impl Figure {
    fn seconds(name: &'static str, value: f64, peer: &'static str, peer_value: f64) -> Self {
        Self {
            name,
            value,
            unit: "s",
            peer: Some((peer, peer_value)),
        }
    }

    /// How many times better ours is.
    fn ratio(&self) -> Option<f64> {
        self.peer.map(|(_, value)| value / self.value)
    }

    fn line(&self) -> String {
        let ours = format!("{:.2} {}", self.value, self.unit);
        let (peer, ratio) = match (self.peer, self.ratio()) {
            (Some((name, value)), Some(ratio)) => (
                format!("{name}: {value:.2} {}", self.unit),
                format!("{ratio:.2}"),
            ),
            _ => ("-".into(), "-".into()),
        };
        format!("{:<66} {ours:>10}  {peer:<48} {ratio:>6}", self.name)
    }

    fn json(&self) -> Value {
        let rounded = |v: f64| (v * 1000.0).round() / 1000.0;
        json!({
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "peer": self.peer.map(|p| p.0),
            "peer_value": self.peer.map(|p| rounded(p.1)),
            "ratio": self.ratio().map(rounded),
        })
    }
}

/// What the boots of one kind have as their median.
fn middle(boots: &[Boot], what: impl Fn(&Boot) -> f64) -> f64 {
    median(boots.iter().map(what))
}

fn boot_figures(args: &Arguments) -> Result<Vec<Figure>> {
    let lab = Lab::new("bench_boot")?;
    let image = lab.build("base", "1.0.0")?;
    let (mut first, mut second, mut theirs, mut memory) = (vec![], vec![], vec![], vec![]);
    for run in 1..=args.runs {
        let ours = ours(&lab, &format!("n{run}"), &image).context("a boot of ours")?;
        eprintln!(
            "run {run}: ours {:?}, again {:?}, {:.1} MB",
            ours.0, ours.1, ours.2
        );
        first.push(ours.0);
        second.push(ours.1);
        memory.push(ours.2);
        let peer =
            debian_boot(&lab, &format!("debian{run}"), &args.peer).context("a boot of mkosi's")?;
        eprintln!("run {run}: mkosi's {peer:?}");
        theirs.push(peer);
    }
    let figure = |name, ours: &[Boot], peer, what: fn(&Boot) -> f64| {
        Figure::seconds(name, middle(ours, what), peer, middle(&theirs, what))
    };
    Ok(vec![
        figure(
            "power-on to agent running with verity root, TCG",
            &first,
            DEBIAN_RUNNING,
            |b| b.running,
        ),
        figure("loader start to the same", &first, DEBIAN_RUNNING, |b| {
            b.running - b.loader
        }),
        figure("power-on to mesh up, TCG", &first, DEBIAN_NETWORK, |b| {
            b.network
        }),
        figure(
            "power-on to mesh up, TCG, a joined node's next boot",
            &second,
            DEBIAN_NETWORK,
            |b| b.network,
        ),
        Figure {
            name: "RSS of init and agent on a joined node, MB",
            value: median(memory),
            unit: "MB",
            peer: None,
        },
    ])
}

fn ready_figures(args: &Arguments) -> Result<Vec<Figure>> {
    let lab = Lab::new("bench_ready")?;
    let stand_in = format!("stand-in={}", args.kube.display());
    let image = lab.build_with("kube", "1.0.0", &["--k3s", &stand_in])?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for run in 1..=args.kube_runs {
        theirs
            .push(bare_ready(&lab, &format!("bare{run}"), &args.bare).context("the bare machine")?);
        ours.push(our_ready(&lab, &format!("s{run}"), &image).context("our server")?);
        eprintln!(
            "run {run}: Ready after {:?} s, bare {:?} s",
            ours.last(),
            theirs.last()
        );
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(vec![
        Figure::seconds(
            "power-on to node Ready",
            ours,
            "a bare machine running the same `kube/`",
            theirs,
        ),
        Figure {
            name: "power-on to node Ready, over a bare machine running the same `kube/`",
            value: ours / theirs,
            unit: "times",
            peer: Some(("the bare machine itself", 1.0)),
        },
    ])
}

fn main() -> Result<()> {
    let args = arguments()?;
    let mut figures = Vec::new();
    if args.runs > 0 {
        figures.extend(boot_figures(&args)?);
    }
    if args.kube_runs > 0 {
        figures.extend(ready_figures(&args)?);
    }
    println!(
        "{:<66} {:>10}  {:<48} {:>6}",
        "figure (medians)", "ours", "peer", "ratio"
    );
    for figure in &figures {
        println!("{}", figure.line());
    }
    println!();
    let all: Vec<Value> = figures.iter().map(Figure::json).collect();
    println!("{}", json!({ "bench": "boot", "figures": all }));
    Ok(())
}
