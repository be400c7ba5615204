//! `holdfast vm run`.

use super::tail::Tail;
use super::{Place, follow, hold, within};
use crate::app::App;
use crate::exit::Exit;
use crate::secrets::VARIABLE;
use crate::vms::{Stamp, VmRecord, Vms};
use crate::words::parse_size;
use anyhow::{Context as _, Result};
use holdfast_core::names::NodeName;
use holdfast_core::seed::Seed;
use holdfast_qemu::{Accel, MachineSpec};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long power-on may take: KVM is tried once per boot of the host, some seconds.
const POWER_ON: Duration = Duration::from_secs(60);

/// Options.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast vm run --image images/holdfast-x86-64-base-1.img --seed n1.seed.toml --name n1
  holdfast vm run --image i.qcow2 --seed s.toml --name s1 --memory 3072 --disk-size 12G --detach

The image is never written: the machine has an overlay of its own, and goes on with it the next time \
it is run by the same name. Runs as an ordinary user. This computer's loopback is 10.0.2.2 inside. \
Without --detach the console is shown; Ctrl-C presses the power button, a second one pulls the plug.")]
pub struct Args {
    /// The disk image, raw or qcow2
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The seed to hand over (QEMU's fw_cfg), as it is: what a node would refuse is handed over too,
    /// with a warning
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// The machine's name [default: the seed's, else vm1]
    #[arg(long)]
    name: Option<NodeName>,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Virtual CPUs
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// How large the disk is that the machine sees: 8G; never smaller than the image
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk_size: Option<u64>,
    /// Write the console here too
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// Return once the machine is on
    #[arg(long)]
    detach: bool,
    /// Begin with a fresh disk
    #[arg(long)]
    fresh: bool,
    /// Never use KVM
    #[arg(long)]
    no_kvm: bool,
    #[command(flatten)]
    place: Place,
    /// Internal: hold a machine for --detach
    #[arg(long, hide = true)]
    hold: bool,
}

fn seed_name(seed: &Path) -> Result<Option<NodeName>> {
    match Seed::from_bytes(&crate::seed_file::bytes(seed)?) {
        Ok(seed) => Ok(seed.name),
        Err(error) => {
            // The node reports it itself; trying bad seeds on purpose must be possible.
            eprintln!(
                "warning: {}: a node will refuse this seed: {error}",
                seed.display()
            );
            Ok(None)
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}

/// Runs the verb.
pub fn run(app: &App, args: Args) -> Result<()> {
    if !args.image.is_file() {
        return Err(Exit::Usage.error(format!(
            "there is no image at {}: `holdfast build --board x86-64 --recipe RECIPE` makes one",
            args.image.display()
        )));
    }
    let from_seed = match &args.seed {
        Some(seed) => seed_name(seed)?,
        None => None,
    };
    let name = args
        .name
        .clone()
        .or(from_seed)
        .map_or_else(|| "vm1".to_string(), String::from);
    let vms = Vms::at(args.place.dir.as_deref())?;
    let before = vms.read(&name)?;
    if before.as_ref().is_some_and(VmRecord::on) {
        return Err(Exit::Usage.error(format!(
            "{name} is on: `holdfast vm stop {name}` first, or take another --name"
        )));
    }
    let image = absolute(&args.image)?;
    let stamp = Stamp::of(&image)?;
    let dir = vms.dir(&name);
    if args.fresh && dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    } else if let Some(before) = before.filter(|b| b.image != image || b.stamp != stamp) {
        return Err(Exit::Usage.error(format!(
            "{name} has a disk made of {}{}: --fresh begins anew, another --name makes another machine",
            before.image.display(),
            if before.image == image { " as it was before" } else { "" },
        )));
    }
    let record = VmRecord {
        console: dir.join("console.log"),
        name,
        image,
        stamp,
        seed: args.seed.as_deref().map(absolute).transpose()?,
        memory: args.memory,
        cpus: args.cpus,
        holder: None,
        qemu: None,
    };
    if !args.hold {
        let tail = Tail::from_end(&record.console);
        let record = spawn_holder(&vms, &record, &args)?;
        return if args.detach {
            app.print(&record, || {
                format!("{0} is on. `holdfast vm console {0} -f` shows its console, `holdfast vm stop {0}` ends it.", record.name)
            })
        } else {
            follow::attached(app, &record, tail)
        };
    }
    let mut spec = MachineSpec::new(&record.name)
        .image(&record.image)
        .memory_mib(record.memory)
        .cpus(record.cpus)
        .dir(&dir);
    if let Some(bytes) = args.disk_size {
        spec = spec.disk_bytes(bytes);
    }
    if let Some(seed) = &record.seed {
        spec = spec.seed(seed);
    }
    if args.no_kvm {
        spec = spec.accel(Accel::Tcg);
    }
    let copy = args.console.as_deref().map(absolute).transpose()?;
    hold::hold(&vms, record, spec, copy.as_deref())
}

/// Starts this program once more to hold the machine, and waits until it is on.
fn spawn_holder(vms: &Vms, record: &VmRecord, args: &Args) -> Result<VmRecord> {
    crate::files::make_private_dir(&vms.dir(&record.name))?;
    let log = vms.dir(&record.name).join("holder.log");
    let out =
        std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let exe = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(exe);
    command
        .args(["vm", "run", "--hold", "--name", &record.name, "--image"])
        .arg(&record.image);
    command.args([
        "--memory",
        &record.memory.to_string(),
        "--cpus",
        &record.cpus.to_string(),
    ]);
    if let Some(seed) = &record.seed {
        command.arg("--seed").arg(seed);
    }
    if let Some(bytes) = args.disk_size {
        command.args(["--disk-size", &bytes.to_string()]);
    }
    if let Some(console) = &args.console {
        command.arg("--console").arg(absolute(console)?);
    }
    if let Some(dir) = &args.place.dir {
        command.arg("--dir").arg(absolute(dir)?);
    }
    if args.no_kvm {
        command.arg("--no-kvm");
    }
    // A group of its own: this terminal's Ctrl-C would end QEMU at once. Holder and QEMU live long,
    // and need no passphrase.
    command
        .env_remove(VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(out)
        .process_group(0);
    let mut child = command
        .spawn()
        .context("cannot start the machine's holder")?;
    let mut ended = false;
    let up = within(POWER_ON, || {
        ended = !matches!(child.try_wait(), Ok(None));
        ended || matches!(vms.read(&record.name), Ok(Some(r)) if r.on())
    });
    if ended || !up {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let said = said.trim().trim_start_matches("holdfast: ");
        return Err(Exit::Failed.error(format!("{} did not start: {said}", record.name)));
    }
    vms.known(&record.name)
}
