//! A lighthouse with a store of an attacker's making: the node it serves takes in no member without
//! a grant, and says so. (That it cannot read or answer a control stream: `lighthouse/tests/streams.rs`.)

use anyhow::{Context as _, ensure};
use holdfast_core::cluster::MESH_PORT;
use holdfast_qemu::free_tcp_port;
use holdfast_tests::{ForgedStore, Lab, Node, ProbeMember, Story};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn a_hostile_store_brings_no_stranger_into_the_mesh() -> Story {
    let mut lab = Lab::new("hostile_lighthouse")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let port = free_tcp_port()?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        spec.forward_udp(port, MESH_PORT)
    })?;
    let view = node.boot()?;
    let address = view.text("mesh_address").parse().context("mesh address")?;
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let probe = ProbeMember::join(&lab.seed("probe", "bare", &[])?, &[("n1", here)])?;

    // the node has heard of the probe before its lighthouse ends
    probe
        .meets("n1", Duration::from_secs(60))
        .context("a granted member should be let in: nothing else here would mean anything")?;
    lab.kill_lighthouse()?;
    let store = ForgedStore::open(&lab.lighthouse_dir())?;
    let (member, record) = store.member("n1")?;
    let impostor = ProbeMember::impostor(&probe, record.mesh_key, address, here)?;
    store.add_impostors(&member, impostor.mesh_key())?;
    drop(store);
    lab.start_lighthouse()?;

    let told = |v: &holdfast_tests::NodeView| {
        v.0["notes"]
            .to_string()
            .contains("members that no grant vouches for: 2")
    };
    node.wait_view(
        "says that members are not vouched for",
        Duration::from_secs(120),
        told,
    )?;
    ensure!(
        !impostor.handshakes_with(record.mesh_key, Duration::from_secs(20)),
        "the node answered a member that no operator granted"
    );
    let nodes = lab.holdfast.json(&["nodes"])?;
    let listed = nodes.as_array().context("a list")?;
    for name in ["forged", "borrowed"] {
        let shown = listed.iter().find(|n| n["name"] == name);
        ensure!(
            shown.is_none_or(|n| n["slot"].is_null() && n["problem"].is_string()),
            "{name} is shown like a member: {shown:?}"
        );
    }
    node.wait_online()?;
    Ok(())
}
