//! One template, one seed with as many uses: each copy is a node of its own. A template that has
//! booted hands its keys to nobody. A copy of a node that has joined stays out of its mesh.

use anyhow::{Context as _, ensure};
use holdfast_proxmox::cidata;
use holdfast_tests::{Lab, Node, Story};
use std::collections::BTreeSet;
use std::path::PathBuf;

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
fn three_nodes_of_one_template() -> Story {
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
        "3",
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
    for n in 1..=3 {
        let name = format!("shelf-{n:02}");
        let mut node = Node::with(&lab, &name, &copy, None, with(n))?;
        node.machine.power_on()?;
        node.wait_for("this disk was copied from another machine")?;
        node.wait_for("holdfast: mesh up")?;
        addresses.insert(node.wait_online()?.text("mesh_address").to_owned());
        node.power_cut()?;
    }
    ensure!(addresses.len() == 3, "{addresses:?}");
    let grants = lab.holdfast.json(&["token", "list"])?;
    ensure!(
        grants[0]["used"] == 3 && grants[0]["name"] == "shelf-01 to shelf-03",
        "{grants}"
    );

    let mut fourth = Node::with(&lab, "fourth", &copy, None, with(4))?;
    fourth.machine.power_on()?;
    fourth.wait_for("grant-used-up: the seed's grant is used up")?;
    fourth.wait_for("holdfast: report written")?;
    fourth.power_cut()
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
