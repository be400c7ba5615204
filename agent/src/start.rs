//! From nothing to a running agent, in order.

use crate::backoff::Backoff;
use crate::clock::{Clock, sntp};
use crate::console::say;
use crate::forever::forever;
use crate::init::Init;
use crate::network::netlink::Netlink;
use crate::network::{Network, Uplinks, Wanted, roaming};
use crate::node::{self, Node, Opened};
use crate::notes::Notes;
use crate::seed::cidata::Drives;
use crate::seed::report::Reporter;
use crate::seed::{Places, fwcfg, smbios};
use crate::store::Store;
use crate::{
    control, gate, guest, health, hosts, join, k3s, lighthouse, meshed, names, rescue, spread,
    watch,
};
use anyhow::Context as _;
use holdfast_core::image::{IMAGE_JSON, ImageInfo};
use holdfast_core::ipc::BootInfo;
use holdfast_core::state::{StateDoc, unread};
use holdfast_core::status::K3sState;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, Notify, watch as channel};

/// Where init puts the image's description; the initramfs is out of sight once the root is there.
const IMAGE_COPY: &str = "/run/holdfast/image.json";

/// Runs until init says stop.
///
/// # Errors
/// When the agent cannot begin at all.
pub async fn run(mesh: Handle) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate()).context("signals cannot be had")?;
    let init = Init::default();
    forever("heartbeat", watch::run(init.clone(), mesh.clone()));
    let node = tokio::select! {
        node = begin(init) => node?,
        _ = stop.recv() => return Ok(()),
    };
    let clock = node.0.clock.clone();
    tokio::select! {
        () = serve(node.0, node.1, mesh) => {}
        _ = stop.recv() => {}
    }
    guest::thaw();
    clock.stop().await;
    Ok(())
}

async fn boot_info(init: &Init) -> BootInfo {
    let mut pauses = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match init.boot().await {
            Ok(info) => return info,
            Err(e) => tracing::warn!("{e:#}"),
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}

fn image_info() -> anyhow::Result<ImageInfo> {
    let text = std::fs::read_to_string(IMAGE_COPY).or_else(|_| std::fs::read_to_string(IMAGE_JSON));
    let text = text.with_context(|| format!("{IMAGE_COPY} and {IMAGE_JSON}"))?;
    serde_json::from_str(&text).with_context(|| IMAGE_COPY.to_owned())
}

/// The state, as soon as its disk can be read.
async fn open_store(path: Option<PathBuf>, notes: &Notes) -> Arc<Store> {
    let mut pauses = Backoff::secs(1, 60);
    loop {
        let opened = match &path {
            Some(path) => Store::open(path).await,
            None => Err(anyhow::anyhow!(
                "init found no partition hf-state on this machine's disk"
            )),
        };
        match opened {
            Ok((store, lost)) => {
                if let Some(why) = lost {
                    let text = format!("hf-state was lost and begins anew: {why}");
                    say(&text);
                    notes.set("state", text);
                }
                let doc = store.get();
                let unread = unread(&doc);
                if !unread.is_empty() {
                    let fields = unread.join(", ");
                    notes.set(
                        "state of a later version",
                        format!("hf-state holds what this version cannot read: {fields}"),
                    );
                }
                return Arc::new(store);
            }
            Err(e) => say(&format!(
                "the node's state cannot be read, tried again: {e:#}"
            )),
        }
        tokio::time::sleep(pauses.pause()).await;
    }
}

fn wanted(doc: &StateDoc) -> Wanted {
    doc.admission
        .as_ref()
        .map_or_else(Wanted::default, |a| Wanted {
            seed: (&a.network).into(),
            wifi: a.wifi.as_ref().map(Into::into),
            host_name: Some(a.name.to_string()),
            plan: Some(node::plan(a)),
        })
}

async fn begin(init: Init) -> anyhow::Result<(Arc<Node>, Netlink)> {
    let boot = boot_info(&init).await;
    let notes = Notes::default();
    let image = image_info().unwrap_or_else(|e| {
        notes.set(
            "image",
            format!("the image does not describe itself: {e:#}"),
        );
        ImageInfo {
            version: boot.boot.version.clone(),
            generation: boot.boot.generation,
            board: String::new(),
            recipe: String::new(),
            built: 0,
            k3s: None,
        }
    });
    say(&format!(
        "agent {} (slot {})",
        image.version, boot.boot.slot
    ));
    guest::start(init.clone(), image.clone(), Handle::current());
    let partition = |name: &str| boot.devices.partitions.get(name).map(PathBuf::from);
    let store = open_store(partition("hf-state"), &notes).await;
    let boot_id = boot.boot.boot_id.as_str();
    let same_boot = !boot_id.is_empty() && store.get().last_boot.as_deref() == Some(boot_id);
    let clock = Clock::start(store.clone(), notes.clone(), image.built, same_boot);
    let clock = Arc::new(clock);
    let netlink = Netlink::open()?;
    let doc = store.get();
    let volume = partition("hf-seed");
    let node = Node {
        init,
        notes,
        clock,
        reporter: Arc::new(Reporter::new(volume.clone())),
        places: Places {
            volume,
            fw_cfg: fwcfg::place(),
            serial: smbios::place(),
            drives: Drives::new(&boot.devices.disk),
            board: image.board.clone(),
        },
        wanted: channel::Sender::new(wanted(&doc)),
        mesh: channel::Sender::new(None),
        handshake: channel::Sender::new(false),
        answered: channel::Sender::new(false),
        k3s: channel::Sender::new(K3sState::None),
        lighthouse: channel::Sender::new(None),
        changed: Notify::new(),
        writing: Mutex::new(()),
        k3s_held: Mutex::new(false),
        opened: Opened::default(),
        callers: Default::default(),
        roamed: Default::default(),
        mesh_anew: Notify::new(),
        posts: Default::default(),
        known: Arc::default(),
        store,
        image,
        boot,
    };
    Ok((Arc::new(node), netlink))
}

/// Everything that runs for ever.
async fn serve(node: Arc<Node>, netlink: Netlink, mesh: Handle) {
    let network = Network::new(
        netlink.clone(),
        node.init.clone(),
        node.notes.clone(),
        node.wanted.subscribe(),
    );
    let uplinks = network.uplinks();
    forever("network", network.run());
    forever("roaming", roaming::tell(node.clone(), uplinks.clone()));
    forever("time", time_servers(node.clone(), uplinks.clone()));
    let (tables, table) = channel::channel(None);
    forever("hosts", hosts::keep(node.clone(), table.clone()));
    forever("names", names::keep(node.clone(), tables));
    forever("gate", gate::run(node.clone(), uplinks.clone()));

    k3s::prefetch(&node);
    join::settle(&node, uplinks.clone()).await;
    let joined = wanted(&node.store.get());
    node.wanted.send_if_modified(|w| {
        let changed = *w != joined;
        *w = joined;
        changed
    });
    forever("clock", node.clock.clone().keep());
    forever("rescue", rescue::run(node.clone()));
    forever("health", health::run(node.clone(), uplinks.clone()));
    tokio::join!(
        meshed::run(node.clone(), netlink, mesh, uplinks),
        control::listen(node.clone()),
        names::serve(node.clone(), table),
        lighthouse::run(node.clone()),
        spread::run(node.clone()),
        k3s::run(node.clone()),
    );
}

/// Until a lighthouse vouches for the time, time servers may move the clock forward; afterwards they
/// are asked where it names one that is far away.
async fn time_servers(node: Arc<Node>, mut uplinks: channel::Receiver<Uplinks>) {
    let mut lighthouse = node.lighthouse.subscribe();
    let mut pauses = Backoff::secs(5, 300);
    loop {
        let servers: Vec<String> = uplinks
            .borrow_and_update()
            .values()
            .flat_map(|u| u.ntp.clone())
            .collect();
        node.clock.ask_from_now_on(servers.clone());
        if lighthouse.borrow_and_update().is_some() {
            if uplinks.changed().await.is_err() {
                return;
            }
            continue;
        }
        if let Some(time) = sntp::ask(&servers).await {
            node.clock.hint(time);
        }
        tokio::select! {
            _ = lighthouse.changed() => {}
            _ = uplinks.changed() => {}
            () = tokio::time::sleep(pauses.pause()) => {}
        }
    }
}
