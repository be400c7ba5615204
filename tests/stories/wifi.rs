//! A node whose seed names a Wi-Fi network joins through the air, its seed gone does so again after
//! a reboot, and stays within reach by air when its cable is pulled. The air is the kernel's simulation
//! of two radios (`mac80211_hwsim`); the second one is the access point, see recipes/test-wifi.toml.

use anyhow::ensure;
use holdfast_qemu::{Card, DiskBus, Nic};
use holdfast_tests::{Lab, Node, Story, until};
use std::path::PathBuf;
use std::time::Duration;

/// A full kernel, two radios and an access point on emulated cores.
const BOOT: Duration = Duration::from_secs(500);
/// How long the node may be out of reach when its cable is pulled, on a busy host.
const TAKEOVER: Duration = Duration::from_secs(120);
/// As in the access point's file: what a careless writer of configurations would cut or end early.
const PASSPHRASE: &str = "say \"friend\" # and enter";

/// A seed with the access point's network.
fn seed(lab: &Lab, more: &[&str]) -> anyhow::Result<PathBuf> {
    let secret = lab.dir().join("passphrase");
    std::fs::write(&secret, PASSPHRASE)?;
    let secret = secret.to_string_lossy().into_owned();
    let mut options = vec!["--wifi", "holdfast air", "--wifi-passphrase-file", &secret];
    options.extend(["--country", "DE"]);
    options.extend(more);
    lab.seed("n1", "bare", &options)
}

/// Waits for the `time`-th such word; it and "mesh up" come in either order.
fn way_out(node: &mut Node, interface: &str, time: usize, limit: Duration) -> Story {
    let told = format!("test-wifi: the way out is {interface}");
    until(&told, limit, || {
        node.console().matches(&told).count() >= time
    })
}

#[test]
fn a_node_joins_through_the_air() -> Story {
    let lab = Lab::new("wifi")?;
    let image = lab.build_for("x86-64", "test-wifi", "1.0.0")?;
    let seed = seed(&lab, &["--interface", "wlan0"])?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        spec.bus(DiskBus::Ahci).nic(Nic::E1000e)
    })?;
    node.machine.power_on()?;
    way_out(&mut node, "wlan0", 1, BOOT)?;
    node.machine.wait_for("holdfast: mesh up", BOOT)?;
    let first = node.wait_online()?;

    // The seed is scrubbed: from here on the node lives of what it kept.
    lab.holdfast.run(["reboot", "n1"])?;
    way_out(&mut node, "wlan0", 2, BOOT)?;
    node.machine.wait_for("holdfast: mesh up", BOOT)?;
    let second = node.wait_view("another boot", BOOT, |v| {
        v.text("boot_id") != first.text("boot_id")
    })?;
    ensure!(first.text("mesh_address") == second.text("mesh_address"));
    let by_card = node.console().contains("the way out is eth");
    ensure!(!by_card, "the card was used: {}", node.console());
    let log = lab.holdfast.run(["logs", "n1"])?;
    ensure!(!log.contains(PASSPHRASE), "the passphrase is in the log");
    Ok(())
}

#[test]
fn the_air_takes_over_when_the_cable_is_pulled() -> Story {
    let lab = Lab::new("wifi_takes_over")?;
    let image = lab.build_for("x86-64", "test-wifi", "1.0.0")?;
    let seed = seed(&lab, &[])?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        spec.bus(DiskBus::Ahci).nic(Nic::E1000e).second_network()
    })?;
    node.machine.power_on()?;
    way_out(&mut node, "eth1", 1, BOOT)?;
    node.machine.wait_for("holdfast: mesh up", BOOT)?;
    node.wait_online()?;
    // both ways stand before one is cut
    until("the log tells of an address by air", BOOT, || {
        let log = lab.holdfast.run(["logs", "n1"]);
        log.is_ok_and(|l| {
            l.lines()
                .any(|l| l.contains("wlan0") && l.contains("lease"))
        })
    })?;

    let changes = [(false, "wlan0", 1), (true, "eth1", 2), (false, "wlan0", 2)];
    for (plugged, interface, time) in changes {
        node.machine.set_cable(Card::Second, plugged)?;
        way_out(&mut node, interface, time, TAKEOVER)?;
        until("it answers", TAKEOVER, || {
            lab.holdfast.json(&["status", "n1"]).is_ok()
        })?;
    }
    Ok(())
}
