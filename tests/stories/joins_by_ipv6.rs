//! A network without IPv4: the node takes its address from router advertisements, joins without
//! waiting for DHCP, and answers; it does so again after a reboot.

use holdfast_tests::{Lab, Node, Story};
use std::time::{Duration, Instant};

/// Without an address the first attempt to join waits 20 s.
const AT_ONCE: Duration = Duration::from_secs(20);

#[test]
fn joins_by_ipv6() -> Story {
    let lab = Lab::by_ipv6("joins_by_ipv6")?;
    let image = lab.build("base", "1.0.0")?;
    let seed = lab.seed("n1", "bare", &[])?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| spec.without_ipv4())?;
    node.start()?;
    let started = Instant::now();
    node.wait_for("holdfast: join: admission stored")?;
    let took = started.elapsed();
    println!("joined {took:?} after the agent started");
    assert!(took < AT_ONCE, "{took:?}");
    node.wait_for("holdfast: mesh up")?;
    let first = node.wait_online()?;
    assert!(!first.text("mesh_address").is_empty(), "{first:?}");

    let second = node.reboot()?;
    assert_ne!(first.text("boot_id"), second.text("boot_id"));
    Ok(())
}
