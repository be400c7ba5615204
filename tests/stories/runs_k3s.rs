//! A server: k3s is Ready, a pod runs, an ordinary user's kubectl reaches it through the
//! lighthouse; after a reboot the node is let in again and the pod runs on.

use anyhow::Context as _;
use holdfast_tests::{Lab, Story, until};
use std::time::Duration;

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: hello, image: 'holdfast.test/pod:1', imagePullPolicy: Never}
";

#[test]
fn runs_k3s_to_ready_and_a_pod_and_survives_a_reboot() -> Story {
    let lab = Lab::new("runs_k3s")?;
    let kube = std::env::var("HOLDFAST_KUBE").context("HOLDFAST_KUBE: see scripts/test")?;
    let stand_in = format!("stand-in={kube}");
    let image = lab.build_with("kube", "1.0.0", &["--k3s", &stand_in])?;
    let seed = lab.seed("s1", "server", &[])?;
    let mut node = holdfast_tests::Node::with(&lab, "s1", &image, Some(&seed), |spec| {
        spec.memory_mib(3072).disk_bytes(12 << 30)
    })?;
    node.boot()?;
    node.wait_ready()?;

    let manifest = lab.dir().join("pod.yaml");
    std::fs::write(&manifest, POD)?;
    let kubectl = |args: &[&str]| {
        lab.holdfast.run(
            ["kubectl", "--kubectl", &kube, "--"]
                .iter()
                .chain(args)
                .copied(),
        )
    };
    // Ready comes before the default service account is there
    until("the pod is taken", Duration::from_secs(120), || {
        kubectl(&["apply", "-f", &manifest.to_string_lossy()]).is_ok()
    })?;
    let running = || {
        kubectl(&["get", "pod", "hello", "-o", "jsonpath={.status.phase}"])
            .is_ok_and(|phase| phase == "Running")
    };
    until("the pod runs", Duration::from_secs(180), running)?;
    assert!(kubectl(&["get", "nodes"])?.contains("s1"));

    node.reboot()?;
    node.wait_ready()?;
    until("the pod runs again", Duration::from_secs(240), running)?;
    Ok(())
}
