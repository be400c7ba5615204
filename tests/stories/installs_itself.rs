//! A stick whose seed has an `[install]` table installs itself on the machine's disk, whatever
//! happens meanwhile, and stays out of the way afterwards.

use anyhow::{Context as _, ensure};
use holdfast_core::keys::PrivateKey;
use holdfast_qemu::{Disk, DiskBus};
use holdfast_tests::{Built, Lab, Node, Story, seedvolume};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// The machine's own disk, in bytes.
const DISK: u64 = 6 << 30;
/// Copying a system to a disk under software emulation.
const INSTALL: Duration = Duration::from_secs(400);

/// The small board of virtual machines has no USB.
const STICK: DiskBus = DiskBus::VirtioBlk;

/// A machine with the image on a stick, its seed on the stick's volume, and an empty disk.
fn machine(
    lab: &Lab,
    name: &str,
    image: &Built,
    rules: &[&str],
    (stick, disk): (DiskBus, DiskBus),
) -> anyhow::Result<(Node, String)> {
    let mut more = vec!["--install"];
    more.extend(rules);
    let seed = std::fs::read_to_string(lab.seed(name, "bare", &more)?)?;
    let node = Node::with(lab, name, image, None, |spec| {
        spec.bus(stick).second_disk(DISK, disk)
    })?;
    let stick = node.machine.disk().context("no stick")?;
    seedvolume::put(stick, "seed.toml", seed.as_bytes())?;
    Ok((node, token(&seed)?))
}

fn token(seed: &str) -> anyhow::Result<String> {
    let line = seed.lines().find_map(|l| l.strip_prefix("token = \""));
    let token = line.and_then(|l| l.strip_suffix('"'));
    Ok(token.context("the seed's token")?.to_owned())
}

fn holds(disk: &Disk, token: &str) -> anyhow::Result<bool> {
    let raw = PrivateKey::from_text(token)?;
    let found = disk.search(&[token.as_bytes(), raw.as_bytes()])?;
    Ok(!found.is_empty())
}

/// What an installer that has done its work looks like.
fn is_spent(node: &Node, token: &str) -> Story {
    let stick = node.machine.disk().context("no stick")?;
    ensure!(!holds(stick, token)?, "the token is still on the stick");
    let report = seedvolume::file(stick, "report.txt")?.context("no report on the stick")?;
    ensure!(report.contains("installed on "), "{report}");
    ensure!(
        seedvolume::file(stick, "seed.toml")?.is_none(),
        "seed.toml is still on the stick"
    );
    Ok(())
}

#[test]
fn from_a_stick_to_the_disk() -> Story {
    let lab = Lab::new("installs_itself")?;
    let image = lab.build_for("x86-64", "base", "1.0.0")?;
    let buses = (DiskBus::Usb, DiskBus::Nvme);
    let (mut node, token) = machine(&lab, "n1", &image, &[], buses)?;
    ensure!(
        holds(node.machine.disk().context("no stick")?, &token)?,
        "the search itself does not find the token"
    );

    node.machine.power_on()?;
    node.machine.wait_for("holdfast: install: done", INSTALL)?;
    // The firmware prefers the stick: its loader goes on to the disk.
    node.wait_for("holdfast: mesh up")?;
    let first = node.wait_online()?;
    assert_eq!((first.text("slot"), first.text("version")), ("a", "1.0.0"));
    let console = node.console();
    ensure!(
        console.contains("install: firmware entry Boot"),
        "no entry was made"
    );
    node.power_cut()?;
    is_spent(&node, &token)?;

    node.machine.unplug_disk(true);
    let alone = node.boot()?;
    assert_eq!(first.text("mesh_address"), alone.text("mesh_address"));
    node.power_cut()?;
    ensure!(
        !holds(node.machine.second_disk().context("no disk")?, &token)?,
        "the token is still on the disk"
    );

    node.machine.unplug_disk(false);
    let beside = node.boot()?;
    assert_eq!(first.text("mesh_address"), beside.text("mesh_address"));
    let again = node.reboot()?;
    assert_ne!(beside.text("boot_id"), again.text("boot_id"));
    Ok(())
}

#[test]
fn power_cuts_in_the_middle() -> Story {
    let lab = Lab::new("installs_itself_cut")?;
    let image = lab.build("base", "1.0.0")?;
    let (mut node, token) = machine(&lab, "n1", &image, &[], (STICK, DiskBus::Ahci))?;
    // Three starts cut within minutes lead to the rescue system, which gives the slot another one.
    for marker in [
        "holdfast: install: begun",
        "holdfast: install: 50 %",
        "holdfast: install: sda written and read back",
        "holdfast: install: done",
        "holdfast: install: seed scrubbed",
        "holdfast: install: the stick's slots are emptied",
    ] {
        node.machine.power_on()?;
        node.machine
            .wait_for(marker, INSTALL)
            .with_context(|| format!("cut at {marker:?}"))?;
        node.power_cut()?;
    }
    let view = node.boot()?;
    assert_eq!(view.text("slot"), "a");
    node.power_cut()?;
    is_spent(&node, &token)
}

#[test]
fn refuses_a_disk_that_holds_data() -> Story {
    let lab = Lab::new("installs_itself_refused")?;
    let image = lab.build("base", "1.0.0")?;
    let (mut node, token) = machine(&lab, "n1", &image, &[], (STICK, DiskBus::Nvme))?;
    let disk = node.machine.second_disk().context("no disk")?.clone();
    disk.write_at(1080, b"\x53\xef")?;
    let before = seen(&disk)?;

    node.machine.power_on()?;
    node.machine
        .wait_for("holdfast: install-refused", INSTALL)?;
    node.wait_for("holdfast: report written")?;
    node.power_cut()?;
    let stick = node.machine.disk().context("no stick")?;
    let report = seedvolume::file(stick, "report.txt")?.context("no report on the stick")?;
    for words in [
        "nvme0n1",
        "holds data (ext file system)",
        "erase = true",
        "vda",
    ] {
        ensure!(report.contains(words), "no {words:?} in:\n{report}");
    }
    ensure!(seen(&disk)? == before, "the disk was written to");

    // The operator says so in the seed: from then on it is no matter.
    let seed = seedvolume::file(stick, "seed.toml")?.context("the seed is gone")?;
    let seed = seed.replacen("[install]", "[install]\nerase = true", 1);
    seedvolume::put(stick, "seed.toml", seed.as_bytes())?;
    node.boot()?;
    node.power_cut()?;
    is_spent(&node, &token)
}

#[test]
fn a_stick_that_is_kept_installs_once() -> Story {
    let lab = Lab::new("installs_itself_kept")?;
    let image = lab.build("base", "1.0.0")?;
    let (mut node, token) = machine(
        &lab,
        "n1",
        &image,
        &["--install-reuse"],
        (STICK, DiskBus::Nvme),
    )?;
    for words in ["install: done", "holds what this installer put there"] {
        node.machine.power_on()?;
        node.machine.wait_for(words, INSTALL)?;
        node.machine.wait_off(Duration::from_secs(60))?;
        let stick = node.machine.disk().context("no stick")?;
        ensure!(holds(stick, &token)?, "a kept stick keeps its seed");
        let report = seedvolume::file(stick, "report.txt")?.context("no report")?;
        ensure!(report.contains("Take the stick out"), "{report}");
    }
    node.machine.unplug_disk(true);
    node.boot()?;
    Ok(())
}

/// What changes with any write to a sparse file: how much of it is there, and its first bytes.
fn seen(disk: &Disk) -> anyhow::Result<(u64, Vec<u8>)> {
    let mut first = vec![0; 1 << 20];
    File::open(disk.path())?.read_exact(&mut first)?;
    Ok((std::fs::metadata(disk.path())?.blocks(), first))
}
