//! One template, one seed with as many uses: each copy is a node of its own. A template that has
//! booted hands its keys to nobody. A copy of a node that has joined stays out of its mesh.
//!
//! Three copies, or as many as `HOLDFAST_CLONES` says.

use anyhow::{Context as _, ensure};
use holdfast_proxmox::cidata;
use holdfast_tests::{Lab, Node, Story};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// How many copies are made.
fn copies() -> anyhow::Result<u8> {
    match std::env::var("HOLDFAST_CLONES") {
        Ok(n) => n.parse().with_context(|| format!("HOLDFAST_CLONES={n}")),
        Err(_) => Ok(3),
    }
}

/// The UUID that a hypervisor gives its `n`th machine.
fn uuid(n: u8) -> String {
    format!("6d2a2c0e-3d52-4e6b-9a53-0f6a1f3c9b{n:02x}")
}

fn drive(lab: &Lab, seed: &std::path::Path) -> anyhow::Result<PathBuf> {
    let path = seed.with_extension("iso");
    let text = std::fs::read(seed)?;
    std::fs::write(&path, cidata::iso(&[(cidata::USER_DATA, &text)])?)?;
    ensure!(path.starts_with(lab.dir()));
    Ok(path)
}

#[test]
fn nodes_of_one_template() -> Story {
    let copies = copies()?;
    let uses = copies.to_string();
    let mut lab = Lab::new("clones")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.dir().join("shelf.seed.toml");
    let out = seed.to_string_lossy().into_owned();
    lab.holdfast.run([
        "seed",
        "new",
        "--role",
        "bare",
        "--uses",
        &uses,
        "--name-prefix",
        "shelf",
        "--out",
        &out,
    ])?;
    let iso = drive(&lab, &seed)?;
    let with = |n: u8| {
        let iso = iso.clone();
        move |spec: holdfast_qemu::MachineSpec| spec.cdrom(&iso).smbios_uuid(&uuid(n))
    };

    // It was started once before it became a template, and had made its keys.
    lab.kill_lighthouse()?;
    let mut template = Node::with(&lab, "template", &image, None, with(0))?;
    template.machine.power_on()?;
    template.wait_for("holdfast: join: identity stored")?;
    template.power_cut()?;
    lab.start_lighthouse()?;
    let disk = template
        .machine
        .disk()
        .context("no disk")?
        .path()
        .to_owned();

    let mut addresses = BTreeSet::new();
    let copy = holdfast_tests::Built {
        image: disk,
        ..image
    };
    for n in 1..=copies {
        let name = format!("shelf-{n:02}");
        let mut node = Node::with(&lab, &name, &copy, None, with(n))?;
        node.machine.power_on()?;
        node.wait_for("this disk was copied from another machine")?;
        node.wait_for("holdfast: mesh up")?;
        addresses.insert(node.wait_online()?.text("mesh_address").to_owned());
        node.power_cut()?;
    }
    ensure!(addresses.len() == usize::from(copies), "{addresses:?}");
    let grants = lab.holdfast.json(&["token", "list"])?;
    ensure!(
        grants[0]["used"] == copies
            && grants[0]["name"] == format!("shelf-01 to shelf-{copies:02}"),
        "{grants}"
    );

    let mut late = Node::with(&lab, "late", &copy, None, with(copies + 1))?;
    late.machine.power_on()?;
    late.wait_for("grant-used-up: the seed's grant is used up")?;
    late.wait_for("holdfast: report written")?;
    late.power_cut()
}

#[test]
fn a_copy_of_a_node_stays_out_of_the_mesh() -> Story {
    let lab = Lab::new("clones_of_a_node")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.seed("original", "bare", &[])?;
    let mut original = Node::with(&lab, "original", &image, Some(&seed), |spec| {
        spec.smbios_uuid(&uuid(1))
    })?;
    original.boot()?;
    original.power_cut()?;
    let disk = original.machine.disk().context("no disk")?;
    let image_of_copy = lab.dir().join("copy.raw");
    disk.export_raw(&image_of_copy)?;
    let copied = holdfast_tests::Built {
        image: image_of_copy,
        ..image
    };
    original.boot()?;

    let mut copy = Node::with(&lab, "copy", &copied, None, |spec| {
        spec.smbios_uuid(&uuid(2))
    })?;
    copy.machine.power_on()?;
    copy.wait_for("this disk is a copy of node original's")?;
    copy.wait_for("holdfast: report written")?;
    ensure!(
        !copy.console().contains("holdfast: mesh up"),
        "a copy's mesh came up"
    );
    original.wait_online()?;
    copy.power_cut()?;

    // Given a seed of its own, it is another node.
    let own = lab.seed("second", "bare", &["--rejoin"])?;
    let iso = drive(&lab, &own)?;
    let mut second = Node::with(&lab, "second", &copied, None, |spec| {
        spec.smbios_uuid(&uuid(2)).cdrom(&iso)
    })?;
    let view = second.boot()?;
    let first = original.wait_online()?;
    ensure!(
        view.text("mesh_address") != first.text("mesh_address"),
        "{view:?}"
    );

    // The original's disk in another machine, while no other has it: it goes on.
    second.power_cut()?;
    original.power_cut()?;
    let disk = original.machine.disk().context("no disk")?;
    let moved_image = lab.dir().join("moved.raw");
    disk.export_raw(&moved_image)?;
    let moved = holdfast_tests::Built {
        image: moved_image,
        ..copied
    };
    let mut moved = Node::with(&lab, "moved", &moved, None, |spec| {
        spec.smbios_uuid(&uuid(3))
    })?;
    moved.machine.power_on()?;
    moved.wait_for("it goes on here")?;
    moved.wait_for("holdfast: mesh up")?;
    moved.power_cut()
}
