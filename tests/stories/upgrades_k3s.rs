//! A server is upgraded: k3s has to be Ready again before that counts. A system whose k3s never
//! comes up is left again, and everything that Kubernetes knew is there as before.

use anyhow::{Context as _, ensure};
use holdfast_tests::{Built, Lab, Node, Story};

#[test]
fn k3s_comes_back_or_the_node_goes_back() -> Story {
    let lab = Lab::new("upgrades_k3s")?;
    let kube = std::env::var("HOLDFAST_KUBE").context("HOLDFAST_KUBE: see scripts/test")?;
    let build = |recipe: &str, version: &str, k3s: &str| -> anyhow::Result<Built> {
        lab.build_with(recipe, version, &["--k3s", &format!("stand-in={k3s}")])
    };
    let first = build("kube", "1.0.0", &kube)?;
    let second = build("kube", "1.1.0", &kube)?;
    // A program that is no k3s at all: another digest, and it never becomes Ready.
    let broken = build("test-short-trial", "1.2.0", "/usr/bin/false")?;
    let seed = lab.seed("s1", "server", &[])?;
    let mut node = Node::with(&lab, "s1", &first, Some(&seed), |spec| {
        spec.memory_mib(3072).disk_bytes(12 << 30)
    })?;
    let kubectl = |args: &[&str]| {
        lab.holdfast.run(
            ["kubectl", "--kubectl", &kube, "--"]
                .iter()
                .chain(args)
                .copied(),
        )
    };
    node.boot()?;
    node.wait_ready()?;
    kubectl(&["create", "configmap", "marker", "--from-literal=kept=yes"])?;

    let upgrade = node.upgrade(&second)?;
    ensure!(upgrade.code == 0, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_ready()?;
    ensure!(view.text("version") == "1.1.0", "{view:?}");

    let upgrade = node.upgrade(&broken)?;
    ensure!(upgrade.code == 5, "{}{}", upgrade.stdout, upgrade.stderr);
    let view = node.wait_ready()?;
    ensure!(
        view.text("version") == "1.1.0" && view.text("reason").contains("k3s"),
        "{view:?}"
    );
    let kept = kubectl(&["get", "configmap", "marker", "-o", "jsonpath={.data.kept}"])?;
    ensure!(kept == "yes", "{kept:?}");
    Ok(())
}
