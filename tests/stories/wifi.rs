//! A node whose seed names a Wi-Fi network joins through the air and, its seed gone, does so again
//! after a reboot. The air is the kernel's simulation of two radios (`mac80211_hwsim`); the second one is
//! the access point, see recipes/test-wifi.toml.

use anyhow::ensure;
use holdfast_qemu::{DiskBus, Nic};
use holdfast_tests::{Lab, Node, Story};
use std::time::Duration;

/// A full kernel, two radios and an access point on emulated cores.
const BOOT: Duration = Duration::from_secs(500);
/// As in the access point's file: what a careless writer of configurations would cut or end early.
const PASSPHRASE: &str = "say \"friend\" # and enter";

#[test]
fn a_node_joins_through_the_air() -> Story {
    let lab = Lab::new("wifi")?;
    let image = lab.build_for("x86-64", "test-wifi", "1.0.0")?;
    let secret = lab.dir().join("passphrase");
    std::fs::write(&secret, PASSPHRASE)?;
    let secret = secret.to_string_lossy().into_owned();
    let seed = lab.seed(
        "n1",
        "bare",
        &[
            "--wifi",
            "holdfast air",
            "--wifi-passphrase-file",
            &secret,
            "--country",
            "DE",
            "--interface",
            "wlan0",
        ],
    )?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        spec.bus(DiskBus::Ahci).nic(Nic::E1000e)
    })?;
    node.machine.power_on()?;
    node.machine.wait_for("holdfast: mesh up", BOOT)?;
    let first = node.wait_online()?;
    only_by_air(&mut node)?;

    // The seed is scrubbed: from here on the node lives of what it kept.
    lab.holdfast.run(["reboot", "n1"])?;
    node.machine.wait_for("holdfast: mesh up", BOOT)?;
    let second = node.wait_view("another boot", BOOT, |v| {
        v.text("boot_id") != first.text("boot_id")
    })?;
    ensure!(first.text("mesh_address") == second.text("mesh_address"));
    only_by_air(&mut node)?;
    let log = lab.holdfast.run(["logs", "n1"])?;
    ensure!(!log.contains(PASSPHRASE), "the passphrase is in the log");
    Ok(())
}

/// The machine's accounts of its routes have the radio's and never one of the card.
fn only_by_air(node: &mut Node) -> anyhow::Result<()> {
    node.machine
        .wait_for("test-wifi: default via 10.0.2.2 dev wlan0", BOOT)?;
    let text = node.console();
    ensure!(
        !text.contains("test-wifi: default via 10.0.2.2 dev eth0"),
        "{text}"
    );
    Ok(())
}
