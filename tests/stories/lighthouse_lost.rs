//! The lighthouse is destroyed with its disk, and another with other keys takes its place: the node
//! comes back, one that was booted meanwhile too, and one that had not joined yet joins with its old
//! seed. Before that a member asks the node for a name.

use anyhow::Context as _;
use holdfast_core::cluster::MESH_PORT;
use holdfast_qemu::free_tcp_port;
use holdfast_tests::{Lab, Node, ProbeMember, Story};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const DNS: u16 = 53;

/// A query for the A record of `n1.lab.internal`, byte by byte (RFC 1035, 4.1).
const QUERY: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02n1\x03lab\x08internal\x00\x00\x01\x00\x01";

#[test]
fn a_node_finds_the_lighthouse_that_replaces_a_lost_one() -> Story {
    let mut lab = Lab::new("lighthouse_lost")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let port = free_tcp_port()?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        spec.forward_udp(port, MESH_PORT)
    })?;
    let first = node.boot()?;
    let address: IpAddr = first.text("mesh_address").parse().context("mesh address")?;

    let seed = lab.seed("probe", "bare", &[])?;
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let probe = ProbeMember::join(&seed, &[("n1", here)])?;
    let mut resolver = probe.connect(address, DNS)?;
    let answer = resolver.asks(QUERY, Duration::from_secs(20))?;
    // No error, one answer, and at its end the address.
    assert_eq!(
        (answer[3] & 15, &answer[6..8]),
        (0, &[0, 1][..]),
        "{answer:?}"
    );
    if let IpAddr::V4(v4) = address {
        assert!(answer.ends_with(&v4.octets()), "{answer:?}");
    }

    let old = lab.seed("late", "bare", &[])?;
    lab.lose_lighthouse()?;
    lab.restore_lighthouse()?;
    let second = node.wait_online()?;
    assert_eq!(first.text("boot_id"), second.text("boot_id"));
    assert_eq!(first.text("mesh_address"), second.text("mesh_address"));

    // Its seed was made before, and pins a key that is no more.
    lab.holdfast.run(["token", "push", "--again"])?;
    let mut late = Node::with(&lab, "late", &image, Some(&old), |spec| spec)?;
    late.boot()?;
    late.power_cut()?;

    node.power_cut()?;
    lab.lose_lighthouse()?;
    node.start()?;
    lab.restore_lighthouse()?;
    node.wait_for("holdfast: mesh up")?;
    let third = node.wait_online()?;
    assert_ne!(first.text("boot_id"), third.text("boot_id"));
    assert_eq!(first.text("mesh_address"), third.text("mesh_address"));
    Ok(())
}
