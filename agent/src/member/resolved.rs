//! Names for the whole machine: where systemd-resolved runs, it is told to ask this member for
//! `CLUSTER.internal`, and for nothing else (resolvectl(1), "routing domains"). What it is told
//! belongs to the interface and goes with it; its owner's `resolv.conf` is left alone.

use super::Joined;
use crate::network::netlink::Netlink;
use crate::node::Node;
use anyhow::{Context as _, ensure};
use holdfast_core::cluster::MESH_INTERFACE;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// systemd-resolved's own files are here while it runs.
const RUNS: &str = "/run/systemd/resolve";
/// And what it was told of each interface, by index, so that it survives its own restart. Private
/// to it: where that looks otherwise one day, it is told once in [`LEAST`].
const TOLD: &str = "netif";
/// How often its file is looked at: it may be started later than this member, or anew.
const LOOK: Duration = Duration::from_secs(5);
/// It is not told more often than this.
const LEAST: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether systemd-resolved runs on this machine.
#[must_use]
pub fn resolved_runs() -> bool {
    Path::new(RUNS).is_dir()
}

/// What `resolvectl` is asked to do.
fn lines(own: &Joined) -> [Vec<String>; 4] {
    let line = |verb: &str, rest: &[String]| {
        let head = [verb.to_owned(), MESH_INTERFACE.to_owned()];
        head.into_iter().chain(rest.iter().cloned()).collect()
    };
    [
        line("dns", &[own.address.to_string()]),
        // The tilde: only asked for, never appended to short names.
        line("domain", &[format!("~{}", own.zone())]),
        line("default-route", &["no".into()]),
        // Or short names are called out into the mesh.
        line("llmnr", &["no".into()]),
    ]
}

async fn tell(own: &Joined) -> anyhow::Result<()> {
    for line in lines(own) {
        let mut command = Command::new("resolvectl");
        command
            .args(&line)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let text = format!("resolvectl {}", line.join(" "));
        let done = timeout(PATIENCE, command.output())
            .await
            .with_context(|| format!("{text}: no answer"))?
            .with_context(|| text.clone())?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{text}: {}", said.trim());
    }
    Ok(())
}

/// Whether it knows of the interface with this index.
fn knows(index: u32, own: &Joined) -> bool {
    let path = Path::new(RUNS).join(TOLD).join(index.to_string());
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(&own.zone()))
}

/// Tells it, and again where it forgot, for ever.
pub(super) async fn keep(node: Arc<Node>, netlink: Netlink, own: Joined) {
    let mut mesh = node.mesh.subscribe();
    let mut last: Option<(u32, Instant)> = None;
    loop {
        if mesh.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let index = netlink.index_of(MESH_INTERFACE).await.ok().flatten();
        if let Some(index) = index.filter(|_| resolved_runs()) {
            let fresh = last.is_none_or(|(of, at)| of != index || at.elapsed() >= LEAST);
            if fresh && !knows(index, &own) {
                last = Some((index, Instant::now()));
                match tell(&own).await {
                    Ok(()) => tracing::info!("systemd-resolved asks here for {}", own.zone()),
                    Err(e) => tracing::warn!("systemd-resolved is not told of names: {e:#}"),
                }
            }
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_the_zone_of_the_cluster_alone() {
        let own = Joined {
            name: "laptop".parse().unwrap(),
            cluster: "home".into(),
            address: [100, 70, 32, 16].into(),
            address6: std::net::Ipv6Addr::LOCALHOST,
        };
        let said = lines(&own).map(|l| l.join(" "));
        assert_eq!(
            said,
            [
                "dns hf0 100.70.32.16",
                "domain hf0 ~home.internal",
                "default-route hf0 no",
                "llmnr hf0 no"
            ]
        );
    }
}
