//! A server with 512 MB, a Raspberry Pi Zero 2 W's: it is in the mesh, does not start k3s and says why.

use anyhow::Context as _;
use holdfast_tests::{Lab, Node, Story};

#[test]
fn a_machine_with_512_mb_joins_without_k3s() -> Story {
    let lab = Lab::new("too_little_memory")?;
    let kube = std::env::var("HOLDFAST_KUBE").context("HOLDFAST_KUBE: see scripts/test")?;
    let stand_in = format!("stand-in={kube}");
    let image = lab.build_with("kube", "1.0.0", &["--k3s", &stand_in])?;
    let seed = lab.seed("n1", "server", &[])?;
    let mut node = Node::with(&lab, "n1", &image, Some(&seed), |spec| spec.memory_mib(512))?;
    let view = node.boot()?;
    assert_eq!((view.text("role"), view.text("k3s")), ("server", "none"));
    let nodes = lab.holdfast.run(["nodes"])?;
    assert!(
        nodes.contains("n1: k3s does not run: this machine has ") && nodes.contains("role bare"),
        "{nodes}"
    );
    Ok(())
}
