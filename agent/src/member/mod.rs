//! An ordinary Linux machine as a member: the join and the mesh of a node, without the rest.
//!
//! What it holds is in one folder, readable by root only: `state` (as `hf-state` on a node), and
//! `socket`, on which the running member is asked. Its interface lives as long as it does. The
//! machine's clock, names and network stay its owner's, and operators do not steer it.

mod ask;
mod resolved;
mod uplinks;

use crate::clock::Clock;
use crate::forever::forever;
use crate::init::Init;
use crate::network::netlink::Netlink;
use crate::network::roaming;
use crate::node::{self, Node, Opened};
use crate::notes::Notes;
use crate::seed::Places;
use crate::seed::cidata::Drives;
use crate::seed::report::Reporter;
use crate::spread;
use crate::store::Store;
use crate::{console, join, lighthouse, meshed, names};
use anyhow::{Context as _, bail};
use holdfast_core::cluster::{MESH_INTERFACE, MeshIndex};
use holdfast_core::image::ImageInfo;
use holdfast_core::ipc::{BootInfo, Devices};
use holdfast_core::names::NodeName;
use holdfast_core::seed::Seed;
use holdfast_core::state::COPY_OFFSET;
use holdfast_core::status::{BootStatus, K3sState, SlotName};
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use std::fs::{DirBuilder, File, OpenOptions};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, watch};

pub use ask::{down, status};
pub use resolved::resolved_runs;

/// Where a member's state is unless told otherwise.
pub const DIR: &str = "/var/lib/holdfast";

/// What a machine became.
#[derive(Debug, Clone, Serialize)]
pub struct Joined {
    /// Its name.
    pub name: NodeName,
    /// Its cluster's.
    pub cluster: String,
    /// Its IPv4 address in the mesh.
    pub address: Ipv4Addr,
    /// Its IPv6 address in the mesh.
    pub address6: Ipv6Addr,
}

impl Joined {
    /// Where its cluster's names are (decision 15).
    #[must_use]
    pub fn zone(&self) -> String {
        format!("{}.internal", self.cluster)
    }
}

fn state(dir: &Path) -> PathBuf {
    dir.join("state")
}

/// One process at a time.
fn lock(dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
        nix::errno::Errno::EWOULDBLOCK => {
            anyhow::anyhow!("the member runs: `holdfast mesh down` ends it")
        }
        e => anyhow::Error::new(e).context(path.display().to_string()),
    })
}

/// What this machine is in which cluster; none: it has not joined.
///
/// # Errors
/// When its state cannot be read.
pub async fn joined(dir: &Path) -> anyhow::Result<Option<Joined>> {
    let path = state(dir);
    if !path
        .try_exists()
        .with_context(|| path.display().to_string())?
    {
        return Ok(None);
    }
    Ok(of(&open(&path).await?))
}

/// Its state. One that is damaged names nobody: keys and membership in it are lost.
async fn open(path: &Path) -> anyhow::Result<Store> {
    let (store, lost) = Store::open(path).await?;
    if let Some(why) = lost {
        bail!(
            "{0} is damaged, and with it this machine's keys: {why}\n  `rm {0}`, then `holdfast join` with a new seed (`holdfast seed new`)",
            path.display()
        );
    }
    Ok(store)
}

fn of(store: &Store) -> Option<Joined> {
    let doc = store.get();
    let admission = doc.admission.as_ref()?;
    let plan = node::plan(admission);
    Some(Joined {
        name: admission.name.clone(),
        cluster: admission.cluster.to_string(),
        address: plan.address4(admission.index),
        address6: plan.address6(admission.index),
    })
}

/// Makes this machine a member; keys are made here and stay here. May be repeated after a failure
/// at any step, with the same keys.
///
/// # Errors
/// When it is a member already, or something stands in the way, in words.
pub async fn join(dir: &Path, seed: &Seed, version: &str) -> anyhow::Result<Joined> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let _lock = lock(dir)?;
    let path = state(dir);
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .and_then(|f| f.set_len(2 * COPY_OFFSET));
    file.with_context(|| format!("cannot make {}", path.display()))?;
    let node = prepare(&path, version).await?;
    if let Some(already) = of(&node.store) {
        bail!(
            "this machine is {} of {} already: `holdfast leave` first",
            already.name,
            already.cluster
        );
    }
    join::on_request(&node, seed).await?;
    of(&node.store).context("the admission was not stored")
}

async fn prepare(path: &Path, version: &str) -> anyhow::Result<Node> {
    let notes = Notes::default();
    let store = Arc::new(open(path).await?);
    let boot = boot(version);
    Ok(Node {
        init: Init::of_others(boot.clone()),
        clock: Arc::new(Clock::of_others(store.clone(), notes.clone())),
        reporter: Arc::new(Reporter::new(None)),
        places: Places {
            volume: None,
            fw_cfg: PathBuf::new(),
            serial: PathBuf::new(),
            drives: Drives::new(""),
            board: String::new(),
        },
        wanted: watch::Sender::default(),
        mesh: watch::Sender::new(None),
        handshake: watch::Sender::new(false),
        answered: watch::Sender::new(false),
        k3s: watch::Sender::new(K3sState::None),
        lighthouse: watch::Sender::new(None),
        changed: Notify::new(),
        writing: Mutex::new(()),
        k3s_held: Mutex::new(false),
        opened: Opened::default(),
        callers: Default::default(),
        roamed: Default::default(),
        mesh_anew: Notify::new(),
        posts: Default::default(),
        known: Arc::default(),
        image: ImageInfo {
            version: boot.boot.version.clone(),
            generation: 0,
            board: String::new(),
            recipe: String::new(),
            built: 0,
            k3s: None,
        },
        notes,
        store,
        boot,
    })
}

/// What operators are told in the place of a node's slots.
fn boot(version: &str) -> BootInfo {
    BootInfo {
        boot: BootStatus {
            boot_id: String::new(),
            slot: SlotName::A,
            version: version.into(),
            generation: 0,
            on_trial: false,
            reason: "a Linux machine that joined".into(),
            slots: vec![],
        },
        devices: Devices {
            disk: String::new(),
            partitions: Default::default(),
        },
        var_on_disk: true,
        root_mounted: true,
        trial_left: None,
        notes: vec![],
        loading: false,
    }
}

/// Runs the member until it is told to end; its interface, addresses, routes and rules are gone then.
///
/// # Errors
/// When it has not joined, or the machine lacks what it needs.
pub async fn run(dir: &Path, version: &str) -> anyhow::Result<()> {
    let Some(own) = joined(dir).await? else {
        bail!(
            "this machine has not joined, by what is in {}: `holdfast join SEED` first",
            dir.display()
        );
    };
    let _lock = lock(dir)?;
    console::to_stderr();
    let node = Arc::new(prepare(&state(dir), version).await?);
    let netlink = Netlink::open()?;
    if netlink.index_of(MESH_INTERFACE).await?.is_some() {
        bail!(
            "there is an interface {MESH_INTERFACE} already, of another program: `ip -d link show {MESH_INTERFACE}` shows its kind; end the program, or remove what it left by `ip link delete {MESH_INTERFACE}`"
        );
    }
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(terminate), Ok(interrupt)] = &mut ends else {
        bail!("signals cannot be had");
    };
    let listener = ask::listen(dir)?;
    let (end, mut ended) = watch::channel(false);
    let asked = ask::serve(listener, node.clone(), end.clone());
    forever("clock", node.clock.clone().keep());
    let (tables, table) = watch::channel(None);
    forever("names", names::keep(node.clone(), tables));
    let uplinks = uplinks::watch(netlink.clone()).await?;
    forever("roaming", roaming::tell(node.clone(), uplinks.clone()));
    forever(
        "resolved",
        resolved::keep(node.clone(), netlink.clone(), own),
    );
    let work = async {
        tokio::join!(
            meshed::run(node.clone(), netlink.clone(), Handle::current(), uplinks),
            lighthouse::run_unsteered(node.clone()),
            spread::run(node.clone()),
            names::serve(node.clone(), table),
        )
    };
    tokio::select! {
        ((), (), (), ()) = work => {}
        () = asked => {}
        _ = ended.wait_for(|e| *e) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let mesh = node.mesh.borrow().clone();
    if let Some(mesh) = mesh {
        mesh.shutdown().await;
    }
    node.clock.stop().await;
    forget_rules(&netlink, &node.store).await;
    ask::remove(dir);
    Ok(())
}

async fn forget_rules(netlink: &Netlink, store: &Store) {
    let doc = store.get();
    let Some(admission) = &doc.admission else {
        return;
    };
    let plan = node::plan(admission);
    for net in meshed::addresses(&plan, MeshIndex::FIRST_NODE) {
        if let Err(e) = netlink.prefer_no_more(net).await {
            tracing::warn!("{e:#}");
        }
    }
}

/// Takes away what a member that was killed left behind.
///
/// # Errors
/// When it runs, or its state cannot be read.
pub async fn clean(dir: &Path) -> anyhow::Result<()> {
    if joined(dir).await?.is_none() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    let (store, _) = Store::open(&state(dir)).await?;
    forget_rules(&Netlink::open()?, &store).await;
    ask::remove(dir);
    Ok(())
}

/// Forgets keys and membership for good.
///
/// # Errors
/// When the member runs, or the files cannot be removed.
pub fn forget(dir: &Path) -> anyhow::Result<()> {
    let _lock = lock(dir)?;
    for name in ["state", "lock"] {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[tokio::test]
    async fn a_damaged_state_is_no_machine_that_never_joined_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert!(joined(dir.path()).await.unwrap().is_none());
        let file = File::create(state(dir.path())).unwrap();
        file.set_len(2 * COPY_OFFSET).unwrap();
        assert!(joined(dir.path()).await.unwrap().is_none());
        file.write_all_at(&[0xee; 64], 0).unwrap();
        let path = state(dir.path()).display().to_string();
        for said in [
            joined(dir.path()).await.err().unwrap(),
            run(dir.path(), "1").await.err().unwrap(),
        ] {
            let said = said.to_string();
            assert!(said.contains(&format!("`rm {path}`")), "{said}");
        }
        // As it says.
        std::fs::remove_file(state(dir.path())).unwrap();
        assert!(joined(dir.path()).await.unwrap().is_none());
    }
}
