//! Two machines, each behind a NAT of its own, and a lighthouse outside: they reach each other
//! through it, and say so.

use anyhow::ensure;
use holdfast_tests::{Lab, Node, Story, until_some};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn two_nodes_behind_nats_reach_each_other() -> Story {
    let mut lab = Lab::new("meets_behind_nats")?;
    let image = lab.build("base", "1.0.0")?;
    let mut nodes = vec![];
    for name in ["n1", "n2"] {
        let seed = lab.seed(name, "bare", &[])?;
        let mut node = Node::with(&lab, name, &image, Some(&seed), |spec| spec)?;
        node.boot()?;
        nodes.push(node);
    }
    // n1 may hear of n2 a moment later.
    let ping = until_some("n1 reaches n2", PATIENCE, || {
        lab.holdfast
            .json(&["mesh", "ping", "n1", "n2", "--count", "3"])
            .map_err(|e| format!("{e:#}"))
    })?;
    println!("{ping}");
    ensure!(ping["answered"].as_u64() >= Some(1), "{ping}");
    // QEMU's NAT lets nothing in that was not sent to: what the lighthouse sees is of no use here.
    ensure!(ping["path"]["kind"] == "relayed", "{ping}");
    let peers = lab.holdfast.json(&["mesh", "status", "n2"])?;
    println!("{peers}");
    let names: Vec<_> = peers.as_array().into_iter().flatten().collect();
    let n1 = names.iter().find(|p| p["name"] == "n1");
    ensure!(
        n1.is_some_and(|p| p["path"]["confirmed"] == true),
        "{peers}"
    );

    // The lighthouse forgets its channels: new ones are asked for.
    lab.kill_lighthouse()?;
    lab.start_lighthouse()?;
    until_some("n1 reaches n2 again", PATIENCE, || {
        lab.holdfast
            .json(&["mesh", "ping", "n1", "n2", "--count", "1"])
            .map_err(|e| format!("{e:#}"))
    })?;
    for node in &mut nodes {
        node.power_cut()?;
    }
    Ok(())
}
