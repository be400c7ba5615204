//! A seed is found wherever it was put: on a cidata drive with its network configuration, in the
//! serial number of the machine's SMBIOS. One for another board, and cloud-init's user-data, are
//! refused with what to do, and cost no token.

use anyhow::{Context as _, ensure};
use holdfast_proxmox::cidata;
use holdfast_tests::{Lab, Node, Story, seedvolume};
use std::path::{Path, PathBuf};

/// A cidata drive with these files.
fn drive(lab: &Lab, name: &str, files: &[(&str, &[u8])]) -> anyhow::Result<PathBuf> {
    let path = lab.dir().join(format!("{name}.iso"));
    std::fs::write(&path, cidata::iso(files)?)?;
    Ok(path)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// The report that a node leaves when it is refused.
fn report(node: &mut Node, words: &[&str]) -> Story {
    for word in words {
        node.wait_for(word)?;
    }
    node.wait_for("holdfast: report written")?;
    node.power_cut()?;
    let disk = node.machine.disk().context("no disk")?;
    let report = seedvolume::file(disk, "report.txt")?.context("no report.txt")?;
    for word in words {
        ensure!(
            report.contains(word),
            "no {word:?} in the report:\n{report}"
        );
    }
    Ok(())
}

#[test]
fn from_a_drive_and_from_smbios() -> Story {
    let lab = Lab::new("seed_sources")?;
    let image = lab.build("base", "1.0.0")?;

    // As Proxmox writes it: the interface by its hardware address, a static address.
    let seed = lab.seed("drive", "bare", &[])?;
    let mac = holdfast_qemu::mac("drive", 0);
    let config = format!(
        "version: 1\nconfig:\n    - type: physical\n      name: net7\n      mac_address: '{mac}'\n      subnets:\n      - type: static\n        address: '10.0.2.77'\n        netmask: '255.255.255.0'\n        gateway: '10.0.2.2'\n    - type: nameserver\n      address:\n      - '10.0.2.3'\n    - type: bond\n"
    );
    let (text, meta) = (read(&seed)?, cidata::meta_data("1", None));
    let files: [(&str, &[u8]); 3] = [
        (cidata::USER_DATA, &text),
        (cidata::META_DATA, meta.as_bytes()),
        (cidata::NETWORK_CONFIG, config.as_bytes()),
    ];
    let iso = drive(&lab, "drive", &files)?;
    let mut node = Node::with(&lab, "drive", &image, None, |spec| spec.cdrom(&iso))?;
    node.machine.power_on()?;
    node.wait_for("not used: config[2]: type bond")?;
    node.wait_for("holdfast: mesh up")?;
    node.wait_online()?;
    let logs = lab.holdfast.run(["logs", "drive", "--lines", "2000"])?;
    ensure!(
        logs.lines()
            .any(|l| l.contains("uplink") && l.contains("Static")),
        "no static address was used:\n{logs}"
    );
    // The drive is still there: a joined node leaves it alone.
    let again = node.reboot()?;
    ensure!(again.text("slot") == "a", "{again:?}");
    node.power_cut()?;

    let seed = lab.seed("smbios", "bare", &[])?;
    let text = seed.to_string_lossy();
    let serial = lab.holdfast.run(["seed", "pack", &text, "--smbios"])?;
    let serial = serial.trim();
    println!("a seed in SMBIOS takes {} characters", serial.len());
    let other = lab.seed("other", "bare", &[])?;
    let iso = drive(&lab, "other", &[(cidata::USER_DATA, &read(&other)?)])?;
    let mut node = Node::with(&lab, "smbios", &image, None, |spec| {
        spec.smbios_serial(serial).cdrom(&iso)
    })?;
    node.machine.power_on()?;
    node.wait_for("another seed is ignored: user-data on the drive labelled cidata")?;
    node.wait_online()?;
    node.power_cut()
}

#[test]
fn what_is_no_seed_for_this_image() -> Story {
    let lab = Lab::new("seed_sources_refused")?;
    let image = lab.build("base", "1.0.0")?;

    let seed = lab.seed("elsewhere", "bare", &["--board", "rpi4"])?;
    let mut node = Node::new(&lab, "elsewhere", &image, Some(&seed))?;
    node.machine.power_on()?;
    report(&mut node, &["bad-seed", "the seed is for board \"rpi4\""])?;

    let cloud = drive(
        &lab,
        "cloud",
        &[(cidata::USER_DATA, b"#cloud-config\nhostname: n1\n")],
    )?;
    let mut node = Node::with(&lab, "cloud", &image, None, |spec| spec.cdrom(&cloud))?;
    node.machine.power_on()?;
    report(&mut node, &["bad-seed", "cloud-init", "--cicustom"])?;

    let grants = lab.holdfast.json(&["token", "list"])?;
    let used = grants.as_array().context("no list")?;
    ensure!(
        used.len() == 1 && used[0]["used"] == 0,
        "a token was used: {grants}"
    );
    Ok(())
}
