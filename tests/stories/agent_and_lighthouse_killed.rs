//! A TCP connection through the mesh outlives the node's agent and the lighthouse.

use anyhow::Context as _;
use holdfast_core::cluster::MESH_PORT;
use holdfast_qemu::free_tcp_port;
use holdfast_tests::{Lab, Node, ProbeMember, Story, until};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const ECHO: u16 = 7;

#[test]
fn a_connection_outlives_the_agent_and_the_lighthouse() -> Story {
    let mut lab = Lab::new("agent_and_lighthouse_killed")?;
    let image = lab.build("test-echo", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let port = free_tcp_port()?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| {
        spec.forward_udp(port, MESH_PORT)
    })?;
    let view = node.boot()?;
    let address: IpAddr = view.text("mesh_address").parse().context("mesh address")?;

    let seed = lab.seed("probe", "bare", &[])?;
    let here = SocketAddr::from(([127, 0, 0, 1], port));
    let probe = ProbeMember::join(&seed, &[("n1", here)])?;
    let mut connection = probe.connect(address, ECHO)?;
    connection.echoes("before\n", Duration::from_secs(20))?;

    let starts = node.console().matches("holdfast: mesh up").count();
    lab.holdfast.run(["restart-agent", "n1"])?;
    until("the agent is back", Duration::from_secs(60), || {
        node.console().matches("holdfast: mesh up").count() > starts
    })?;
    connection.echoes("after the agent was killed\n", Duration::from_secs(60))?;

    lab.kill_lighthouse()?;
    connection.echoes("after the lighthouse was killed\n", Duration::from_secs(30))?;
    lab.start_lighthouse()?;
    node.wait_online()?;
    connection.echoes("after the lighthouse came back\n", Duration::from_secs(30))?;
    Ok(())
}
