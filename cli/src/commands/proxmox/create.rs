//! `holdfast proxmox create`.

use super::connect::HostArgs;
use super::drive::{CheckedSeed, DriveArgs, uuid};
use super::image::{self, Image, Store};
use super::place;
use super::start::{Row, StartArgs, rows};
use super::work::Work;
use crate::app::App;
use crate::exit::Exit;
use crate::words::parse_size;
use anyhow::Result;
use holdfast_proxmox::answers::StorageEntry;
use holdfast_proxmox::calls;
use holdfast_proxmox::machine::{DISK, Machine, Smbios, drive_file};
use holdfast_proxmox::names::{Bridge, MachineName, Node, Storage, VmId, Volume};
use std::path::PathBuf;

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  export HOLDFAST_PROXMOX_HOST=pve.example HOLDFAST_PROXMOX_TOKEN='operator@pve!holdfast=…'
  holdfast proxmox create --image images/holdfast-proxmox-k3s-1.qcow2 --seed n1.seed.toml \\
      --name n1 --storage local-lvm --disk-size 32G --start --wait
  holdfast proxmox create --image local:import/holdfast-0123456789abcdef.qcow2 --name base \\
      --template

The machine gets UEFI without enrolled keys, a virtio-scsi disk, a serial console, a watchdog and the \
guest agent's port. The seed goes on a small drive labelled `cidata`; whoever may read that storage can \
read it until the node has joined. The image stays on the host for the next machine. What fails or is \
interrupted is removed again.")]
pub struct Args {
    #[command(flatten)]
    host: HostArgs,
    /// qcow2 image on this computer, or a volume of the host (STORAGE:import/FILE)
    #[arg(long, value_name = "IMAGE", value_parser = image::parse)]
    image: Image,
    /// The node's seed
    #[arg(long, value_name = "FILE", required_unless_present = "template")]
    seed: Option<PathBuf>,
    /// Hand the seed over as the serial number of its SMBIOS, not on a drive: whoever may look at the
    /// machine's settings can read it
    #[arg(long, requires = "seed", conflicts_with_all = ["iso_storage", "network_config"])]
    smbios: bool,
    #[command(flatten)]
    drive: DriveArgs,
    /// The machine's name [default: the seed's]
    #[arg(long, value_name = "NAME")]
    name: Option<MachineName>,
    /// The machine's number [default: a free one]
    #[arg(long, value_name = "N")]
    vmid: Option<VmId>,
    /// Node of the Proxmox cluster [default: the only one]
    #[arg(long, value_name = "NODE")]
    node: Option<Node>,
    /// Where its disks go [default: the only one that takes disks]
    #[arg(long, value_name = "STORAGE")]
    storage: Option<Storage>,
    /// Where the image is uploaded to [default: the one that takes imports]
    #[arg(long, value_name = "STORAGE")]
    import_storage: Option<Storage>,
    /// Memory
    #[arg(long, default_value = "2G", value_name = "SIZE", value_parser = parse_size)]
    memory: u64,
    /// Virtual CPUs
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    cores: u32,
    /// Bridge of its network
    #[arg(long, default_value = "vmbr0", value_name = "BRIDGE")]
    bridge: Bridge,
    /// Grow its disk to this; /var takes what is new [default: the image's size]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk_size: Option<u64>,
    /// Make a template of it
    #[arg(long, conflicts_with = "start")]
    template: bool,
    #[command(flatten)]
    start: StartArgs,
}

/// Whole GiB, as Proxmox's sizes are written here; rounded up.
pub fn gib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}

fn mib(bytes: u64) -> Result<u32> {
    u32::try_from(bytes >> 20)
        .ok()
        .filter(|m| *m >= 512)
        .ok_or_else(|| Exit::Usage.error("--memory: a node needs at least 512M"))
}

fn name(args: &Args, seed: Option<&CheckedSeed>) -> Result<MachineName> {
    let from_seed = seed.and_then(|s| s.seed.name.as_ref());
    match (&args.name, from_seed) {
        (Some(name), _) => Ok(name.clone()),
        (None, Some(name)) => Ok(name.as_str().parse()?),
        (None, None) => Err(Exit::Usage.error("the seed names no node: give the machine a --name")),
    }
}

/// Runs the verb.
pub async fn run(app: &App, args: Args) -> Result<()> {
    // Whatever can be wrong is found before anything is made.
    let seed = match &args.seed {
        Some(path) => Some(CheckedSeed::read(path, &args.drive)?),
        None => None,
    };
    if let Image::Local(path) = &args.image {
        image::check(path)?;
        image::fits(path, seed.as_ref().map(|s| &s.seed))?;
    }
    let name = name(&args, seed.as_ref())?;
    let memory = mib(args.memory)?;
    let client = args.host.client()?;
    let node = place::node(&client, args.node.clone()).await?;
    let storages = place::storages(&client, &node).await?;
    let disks = place::choose(&storages, "images", "--storage", args.storage.as_ref())?;
    let drives = match &seed {
        Some(_) if !args.smbios => Some(place::choose(
            &storages,
            "iso",
            "--iso-storage",
            args.drive.iso_storage.as_ref(),
        )?),
        _ => None,
    };
    place::name_is_free(&place::machines(&client).await?, &name)?;
    let id = place::free_id(&client, args.vmid).await?;
    let uuid = uuid()?;
    let serial = match &seed {
        Some(seed) if args.smbios => Some(seed.line()?),
        _ => None,
    };
    let drive = drives
        .as_ref()
        .map(|d| Volume::file(&d.storage, "iso", &drive_file(id, &name)));
    let machine = Machine {
        id,
        name,
        memory,
        cores: args.cores,
        bridge: args.bridge.clone(),
        storage: disks.storage.clone(),
        image: match &args.image {
            Image::There(volume) => volume.clone(),
            Image::Local(_) => Volume::file(&disks.storage, "import", "image.qcow2"),
        },
        drive,
        smbios: Smbios { uuid, serial },
    };
    let mut work = Work::begin(&client)?;
    let made = make(&mut work, &args, machine, seed.as_ref(), &node, &storages).await;
    let result = match made {
        Ok(mut row) => {
            work.keep_all();
            let started = args
                .start
                .carry_out(&mut work, std::slice::from_mut(&mut row))
                .await;
            started.map(|()| row)
        }
        Err(e) => Err(e),
    };
    let row = work.end(app, result).await?;
    app.print(&row, || rows(std::slice::from_ref(&row)))
}

async fn make(
    work: &mut Work<'_>,
    args: &Args,
    mut machine: Machine,
    seed: Option<&CheckedSeed>,
    node: &Node,
    storages: &[StorageEntry],
) -> Result<Row> {
    if let Image::Local(path) = &args.image {
        let store = Store {
            node,
            storages,
            wanted: args.import_storage.as_ref(),
        };
        machine.image = image::bring(work, &store, path, &machine).await?;
    }
    if let (Some(seed), Some(volume)) = (seed, &machine.drive) {
        let bytes = seed.drive(&machine.smbios.uuid, &machine.name)?;
        put_drive(work, node, volume, bytes).await?;
    }
    let id = machine.id;
    let call = calls::create(node, machine.settings()?);
    let mark = &machine.smbios.uuid;
    work.make_machine("make the machine", &call, node, id, mark)
        .await?;
    if let Some(bytes) = args.disk_size {
        let call = calls::resize(node, id, DISK, gib(bytes));
        work.run("grow its disk", &call).await?;
    }
    if args.template {
        work.run("make a template", &calls::template(node, id))
            .await?;
    }
    Ok(Row {
        vmid: id,
        node: node.clone(),
        name: machine.name,
        template: args.template,
        running: false,
        drive: machine.drive,
        image: Some(machine.image),
        addresses: vec![],
    })
}

/// Uploads a machine's drive.
pub async fn put_drive(
    work: &mut Work<'_>,
    node: &Node,
    volume: &Volume,
    bytes: Vec<u8>,
) -> Result<()> {
    let step = format!("drive {}", volume.file_name());
    work.steps.start(&step, None);
    work.will_make_file(node, volume);
    let client = work.client;
    let upload = client.upload_bytes(node, volume.storage(), "iso", volume.file_name(), bytes);
    work.patiently(upload).await?;
    work.steps.done(&step, "done");
    Ok(())
}
