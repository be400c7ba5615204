//! k3s on the node: its files, its start through init, whether it is Ready, and its datastore over
//! upgrades. What the agent knows of it is its documented contract (decision 11).

mod config;
mod files;
mod keep;
mod life;
mod memory;
mod prefetch;
mod ready;
mod shipped;

use crate::backoff::Backoff;
use crate::disk;
use crate::node::Node;
use anyhow::{Context as _, bail};
use holdfast_core::image::{K3sInfo, ServiceSpec};
use holdfast_core::ipc::{InitRequest, ServiceState};
use holdfast_core::names::Role;
use holdfast_core::status::{BootStatus, K3sState, SlotName};
use keep::{Act, DATASTORE, KEPT, Kept};
use ready::Asker;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// k3s's administrator configuration.
pub const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
/// The Kubernetes API on the node.
pub const API: &str = "127.0.0.1:6443";
/// The service's name at init.
const SERVICE: &str = "k3s";
const PROGRAM: &str = "/usr/bin/k3s";

fn spec() -> ServiceSpec {
    ServiceSpec {
        name: SERVICE.into(),
        exec: vec![PROGRAM.into(), "server".into()],
        env: vec![
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            "HOME=/root".into(),
        ],
        keep_children: true,
        delegate: true,
    }
}

/// Why no k3s runs on this node, if none is to.
fn hindrance(node: &Node) -> Option<String> {
    let role = node.store.get().admission.as_ref().map(|a| a.role)?;
    match role {
        Role::Bare => return Some(String::new()),
        Role::Agent => {
            return Some("role agent: this image starts k3s on servers only; the node is in the mesh without k3s".into());
        }
        Role::Server => {}
    }
    if node.image.k3s.is_none() {
        return Some(
            "role server, but the image holds no k3s: build one with a recipe that has it".into(),
        );
    }
    if !node.boot.root_mounted {
        return Some("k3s does not run: the root file system is not mounted (rescue)".into());
    }
    if !node.boot.var_on_disk {
        return Some("k3s does not run: /var is in memory because its disk does not mount".into());
    }
    memory::hindrance(&memory::table())
}

/// Reads k3s's program ahead, where it is likely to be started in this boot.
pub fn prefetch(node: &Node) {
    if node.image.k3s.is_some() && hindrance(node).is_none() {
        prefetch::begin();
    }
}

/// Runs k3s, where the role wants it, for ever.
pub async fn run(node: Arc<Node>) {
    if let Some(why) = hindrance(&node) {
        if !why.is_empty() {
            node.notes.set("k3s", why);
        }
        return;
    }
    node.k3s.send_replace(K3sState::Starting);
    // Mesh addresses are fixed before k3s first starts.
    let mut mesh = node.mesh.subscribe();
    if mesh.wait_for(Option::is_some).await.is_err() {
        return;
    }
    drop(mesh);
    let mut pauses = Backoff::secs(1, 60);
    loop {
        match begin(&node).await {
            Ok(()) => {
                node.notes.clear("k3s");
                watch(&node).await;
                pauses.reset();
            }
            Err(e) => {
                node.notes
                    .set("k3s", format!("k3s cannot be started: {e:#}"));
                tokio::time::sleep(pauses.pause()).await;
            }
        }
    }
}

async fn begin(node: &Node) -> anyhow::Result<()> {
    // To the end: a trial's copy and a start wait for each other.
    let held = node.k3s_held.lock().await;
    if *held {
        bail!("a slot is being put on trial");
    }
    let doc = node.store.get();
    let admission = doc.admission.clone().context("this node has not joined")?;
    let identity = doc.identity.clone().context("this node has no keys")?;
    let running = node.image.k3s.clone().context("the image holds no k3s")?;
    let now = node.init.boot().await?.boot;
    let (boot_id, may_go_back) = (node.boot.boot.boot_id.clone(), now.may_go_back());
    let preparing = node.writing.try_lock().is_err();
    let ahead = trial_ahead(&now);
    let already = service(node).await?.is_some_and(|s| s.pid.is_some());
    let id = boot_id.clone();
    let copied = disk::blocking(move || Ok(keep::made_in(Path::new(KEPT), &id))).await?;
    if keep::cut_off(already, preparing, ahead, copied) {
        // Not k3s: what it wrote now the copy would undo, should the node go back.
        crate::update::reboot(node, "into the trial that was installed".into(), false).await?;
        bail!("the node reboots into its trial");
    }
    let odd = disk::blocking(move || {
        files::write(&admission, &identity)?;
        let odd = shipped::bring()?;
        if !already {
            tend_copy(&running, &boot_id, may_go_back, preparing || ahead)?;
        }
        Ok(odd)
    })
    .await?;
    if odd.is_empty() {
        node.notes.clear("k3s images");
    } else {
        node.notes.set("k3s images", odd.join("; "));
    }
    node.init.start(spec()).await
}

/// Whether the other slot is on trial at the next start.
fn trial_ahead(now: &BootStatus) -> bool {
    now.slots
        .iter()
        .any(|s| s.slot != now.slot && s.state == "trial")
}

/// The datastore's copy: put back after going back, dropped once it is of no use.
fn tend_copy(
    running: &K3sInfo,
    boot_id: &str,
    may_go_back: bool,
    armed: bool,
) -> anyhow::Result<()> {
    let (datastore, kept) = (Path::new(DATASTORE), Path::new(KEPT));
    let Some(note) = keep::read(kept) else {
        return Ok(());
    };
    match keep::act(&note, running, boot_id, may_go_back, armed) {
        Act::Leave => Ok(()),
        Act::Restore => {
            tracing::warn!(
                k3s = note.k3s.version,
                "the node went back: its datastore is put back"
            );
            keep::restore(datastore, kept)
        }
        Act::Drop => keep::forget(kept),
    }
}

async fn service(node: &Node) -> anyhow::Result<Option<ServiceState>> {
    Ok(node
        .init
        .services()
        .await?
        .into_iter()
        .find(|s| s.name == SERVICE))
}

/// Looks after a started k3s; returns when it is to be started anew.
async fn watch(node: &Node) {
    let name = node
        .store
        .get()
        .admission
        .as_ref()
        .map(|a| a.name.to_string())
        .unwrap_or_default();
    let mut asker = Asker::default();
    let mut was_ready = false;
    let started = Instant::now();
    loop {
        let service = match service(node).await {
            Ok(service) => service,
            Err(e) => {
                tracing::warn!("{e:#}");
                None
            }
        };
        let ready = match asker.ready(&name).await {
            Ok(ready) => ready,
            Err(e) => {
                tracing::debug!("k3s: {e:#}");
                false
            }
        };
        was_ready |= ready;
        let state = life::state(service.as_ref(), ready, was_ready);
        let changed = node.k3s.send_if_modified(|s| {
            let changed = *s != state;
            *s = state;
            changed
        });
        if changed {
            crate::console::say(&format!("k3s {state}"));
            node.changed.notify_one();
        }
        if service
            .and_then(|s| running_for(s.pid?))
            .is_some_and(life::restart_due)
        {
            tracing::info!("k3s is started anew, so that it renews its certificates");
            if let Err(e) = stop(node).await {
                tracing::warn!("{e:#}");
            }
            return;
        }
        tokio::time::sleep(life::pause(state, started.elapsed())).await;
    }
}

fn running_for(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let now: u64 = uptime.split('.').next()?.parse().ok()?;
    Some(Duration::from_secs(
        now.saturating_sub(life::started_at(&stat)?),
    ))
}

/// Stops k3s and waits until it has.
async fn stop(node: &Node) -> anyhow::Result<()> {
    if service(node).await?.is_none() {
        return Ok(());
    }
    node.init
        .ask(InitRequest::StopService {
            name: SERVICE.into(),
        })
        .await?;
    let gone = async {
        while service(node).await?.is_some_and(|s| s.pid.is_some()) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(90), gone)
        .await
        .context("k3s does not stop")?
}

/// The k3s that wrote the datastore last: the running system's; in rescue that of the slot whose image it
/// is a copy of, if there is one.
fn writer(node: &Node) -> Option<K3sInfo> {
    let boot = &node.boot.boot;
    let known = boot.slot != SlotName::Rescue
        || boot
            .slots
            .iter()
            .any(|s| s.state == "good" && s.generation == node.image.generation);
    node.image.k3s.clone().filter(|_| known)
}

/// Before a trial that brings another k3s: its datastore is copied.
///
/// # Errors
/// When k3s does not stop or the copy does not fit; then the trial must not begin.
pub async fn before_trial(node: &Node, next: Option<&K3sInfo>) -> anyhow::Result<()> {
    let server = node
        .store
        .get()
        .admission
        .as_ref()
        .is_some_and(|a| a.role == Role::Server);
    // Once a start in flight has come to its end: init must know what is to be stopped.
    let mut held = node.k3s_held.lock().await;
    // One that an attempt of this boot left behind is older than what k3s wrote since.
    let boot_id = node.boot.boot.boot_id.clone();
    disk::blocking(move || keep::forget_made_in(Path::new(KEPT), &boot_id)).await?;
    let running = writer(node);
    if !server || !keep::needed(running.as_ref(), next) || !Path::new(DATASTORE).is_dir() {
        return Ok(());
    }
    let Some(running) = running else {
        return Ok(());
    };
    *held = true;
    drop(held);
    stop(node).await?;
    let note = Kept {
        k3s: running,
        boot_id: node.boot.boot.boot_id.clone(),
    };
    disk::blocking(move || keep::keep(Path::new(DATASTORE), Path::new(KEPT), &note)).await
}

/// No trial begins after all: the copy that was made for it goes, and a k3s that was stopped for
/// it runs again. Called by who holds [`Node::writing`].
pub async fn no_trial(node: &Node) {
    let asked = async {
        let now = node.init.boot().await?.boot;
        // One of an earlier trial, which still stands, keeps its copy.
        if !trial_ahead(&now) {
            disk::blocking(move || keep::forget_made_in(Path::new(KEPT), &now.boot_id)).await?;
        }
        *node.k3s_held.lock().await = false;
        // Also one that still stops: it is started when it has.
        if service(node).await?.is_some() {
            node.init.start(spec()).await?;
        }
        anyhow::Ok(())
    };
    if let Err(e) = asked.await {
        // Not with the copy in place: what k3s writes now a later start would undo.
        node.notes.set(
            "k3s",
            format!("k3s is not started again after a refused trial: {e:#}; reboot the node"),
        );
    }
}

/// The running system is proven and did last: a copy from before it is of no use any more. One that was
/// made in this boot is for a trial that is to come.
pub async fn settled(boot_id: &str) {
    let boot_id = boot_id.to_owned();
    let done = disk::blocking(move || match keep::made_in(Path::new(KEPT), &boot_id) {
        true => Ok(()),
        false => keep::forget(Path::new(KEPT)),
    });
    if let Err(e) = done.await {
        tracing::warn!("the copy of k3s's datastore stays: {e:#}");
    }
}
