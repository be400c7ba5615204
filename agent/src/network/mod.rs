//! The network outside of the mesh: every physical Ethernet interface up, and every radio for which
//! there is a Wi-Fi network, addressed by DHCP and router advertisements or by the seed, for as long
//! as the agent runs.

pub mod addresses;
mod advertised;
mod dhcp;
mod named;
pub mod netlink;
pub mod plan;
mod port;
pub mod roaming;
mod routers;
mod settings;
mod told;
mod wifi;

pub use named::interface_of;

use crate::init::Init;
use crate::notes::Notes;
use holdfast_core::cluster::AddressPlan;
use holdfast_core::seed::{SeedNetwork, SeedWifi};
use netlink::Netlink;
use plan::{Link, Mode, Uplink};
use port::{Port, Task};
use routers::Routers;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use told::Told;
use wifi::Radios;

/// The kernel's news come in bursts, and a stranger's router advertisements are such news.
const SETTLE: Duration = Duration::from_millis(200);

/// `resolv.conf`, to which the root's `/etc/resolv.conf` points.
pub const RESOLV_CONF: &str = "/run/holdfast/resolv.conf";

/// What the network has to know of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Settings from the seed.
    pub seed: SeedNetwork,
    /// Wi-Fi from the seed.
    pub wifi: Option<SeedWifi>,
    /// The node's name, once it has one.
    pub host_name: Option<String>,
    /// The cluster's ranges, to look for overlaps.
    pub plan: Option<AddressPlan>,
}

/// The uplinks in use, by interface.
pub type Uplinks = BTreeMap<String, Uplink>;

/// The running network.
pub struct Network {
    netlink: Netlink,
    init: Init,
    notes: Notes,
    wanted: watch::Receiver<Wanted>,
    told: Told,
    /// Counts the links that came up.
    came_up: u64,
}

/// When the leases run out, by interface.
type Expiries = BTreeMap<String, dhcp::Expiry>;

enum Event {
    Dhcp(String, dhcp::News),
}

impl Network {
    /// For the settings that `wanted` brings; told of uplinks by [`Network::uplinks`].
    pub fn new(
        netlink: Netlink,
        init: Init,
        notes: Notes,
        wanted: watch::Receiver<Wanted>,
    ) -> Self {
        Self {
            netlink,
            init,
            notes,
            wanted,
            told: Told::new(),
            came_up: 0,
        }
    }

    /// The uplinks in use.
    pub fn uplinks(&self) -> watch::Receiver<Uplinks> {
        self.told.uplinks()
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let (events, mut happened) = mpsc::channel(16);
        let mut tasks: BTreeMap<String, Task> = BTreeMap::new();
        let mut expiries = Expiries::new();
        let mut radios = Radios::new(self.init.clone(), self.notes.clone());
        let mut changes = self.netlink.changes();
        let routers = Routers::listen();
        let mut heard = routers.changes();
        let mut unanswered = self.netlink.unanswered();
        let mut before = self.wanted.borrow().seed.clone();
        loop {
            changes.mark_unchanged();
            heard.mark_unchanged();
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.seed != before {
                // Other settings: every interface begins anew.
                tasks.clear();
                before = wanted.seed.clone();
            }
            if let Some(name) = &wanted.host_name
                && let Err(e) = nix::unistd::sethostname(name)
            {
                tracing::warn!("the host name cannot be set: {e}");
            }
            if let Err(e) = self
                .survey(
                    &wanted,
                    &routers,
                    &mut radios,
                    &mut tasks,
                    &mut expiries,
                    &events,
                )
                .await
            {
                tracing::warn!("looking for interfaces: {e:#}");
            }
            if let Err(e) = self.told.publish(&self.netlink, &routers, &wanted).await {
                tracing::warn!("uplinks: {e:#}");
            }
            self.look_for_overlap(&wanted);
            unanswered = self.note_unanswered(unanswered);
            let burst = async {
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = heard.changed() => {}
                }
                tokio::time::sleep(SETTLE).await;
            };
            tokio::select! {
                () = burst => {}
                changed = self.wanted.changed() => {
                    if changed.is_err() { return; }
                }
                Some(Event::Dhcp(name, news)) = happened.recv() => {
                    // What is left of a client that was stopped for static addresses is no news.
                    if let Some(task) = tasks.get(&name)
                        && task.mode == Mode::Automatic
                    {
                        self.dhcp(&task.port, news, &wanted).await;
                    }
                }
                // Should a message of the kernel be lost.
                () = tokio::time::sleep(Duration::from_secs(30)) => {}
            }
        }
    }

    /// Notes whether the kernel left requests without an answer since there were `before`; how many
    /// there are now.
    fn note_unanswered(&self, before: u64) -> u64 {
        let now = self.netlink.unanswered();
        if now == before {
            self.notes.clear("netlink");
        } else {
            self.notes.set("netlink", "the kernel left what this node asked about its network without an answer for 10 s: asked again; does a router flood this network with advertisements?");
        }
        now
    }

    /// Sets interfaces up and starts what addresses them.
    async fn survey(
        &mut self,
        wanted: &Wanted,
        routers: &Routers,
        radios: &mut Radios,
        tasks: &mut BTreeMap<String, Task>,
        expiries: &mut Expiries,
        events: &mpsc::Sender<Event>,
    ) -> anyhow::Result<()> {
        self.raise_loopback().await;
        let links = self.netlink.links().await?;
        tasks.retain(|name, task| {
            let link = links.iter().find(|l| l.name == *name);
            if link.is_none_or(|l| !l.carrier) {
                routers.forget(task.port.index);
            }
            task.holds(link)
        });
        radios.tend(&links, wanted).await;
        for link in links {
            let Some(mode) = plan::mode(&link, wanted) else {
                continue;
            };
            if wanted.wifi.is_some() {
                settings::stand_beside(&link);
            }
            if !link.up {
                settings::accept_advertisements(&link.name);
                if let Err(e) = self.netlink.up(link.index, None).await {
                    tracing::warn!(interface = link.name, "{e:#}");
                    continue;
                }
            }
            if !link.carrier || tasks.get(&link.name).is_some_and(|t| t.mode == mode) {
                continue;
            }
            tracing::info!(interface = link.name, ?mode, "uplink");
            let expiry = expiries.entry(link.name.clone()).or_default().clone();
            self.came_up += 1;
            let port = Port {
                name: link.name.clone(),
                index: link.index,
                metric: plan::metric(&link),
                came_up: self.came_up,
            };
            self.told.came_up(port.clone());
            if let Err(e) = routers::solicit(link.index) {
                tracing::debug!(interface = link.name, "no router is asked: {e}");
            }
            let running = self
                .start(&link, &port, &mode, wanted, expiry, events)
                .await;
            let task = Task {
                port,
                mode,
                running,
            };
            tasks.insert(link.name.clone(), task);
        }
        Ok(())
    }

    /// Nobody else brings loopback up: the node's own addresses, and what k3s binds to it, need it.
    async fn raise_loopback(&self) {
        let raised = match self.netlink.index_of("lo").await {
            Ok(Some(index)) => self.netlink.up(index, None).await,
            other => other.map(drop),
        };
        if let Err(e) = raised {
            tracing::warn!("loopback: {e:#}");
        }
    }

    async fn start(
        &mut self,
        link: &Link,
        port: &Port,
        mode: &Mode,
        wanted: &Wanted,
        expiry: dhcp::Expiry,
        events: &mpsc::Sender<Event>,
    ) -> Option<JoinHandle<()>> {
        match mode {
            Mode::Static => {
                // No address of a lease stays.
                expiry.set(None);
                let uplink = plan::from_seed(&wanted.seed);
                self.apply(port, uplink).await;
                None
            }
            Mode::Automatic => {
                let (send, mut news) = mpsc::channel(4);
                let (name, events) = (link.name.clone(), events.clone());
                let dhcp = dhcp::run(link.clone(), wanted.host_name.clone(), send, expiry);
                let forward = async move {
                    while let Some(n) = news.recv().await {
                        let event = Event::Dhcp(name.clone(), n);
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                };
                Some(tokio::spawn(async move {
                    tokio::join!(dhcp, forward);
                }))
            }
        }
    }

    async fn dhcp(&mut self, port: &Port, news: dhcp::News, wanted: &Wanted) {
        match news {
            dhcp::News::Leased(lease) => {
                let uplink = plan::from_lease(&lease, Some(&wanted.seed), wanted.plan.as_ref());
                self.apply(port, uplink).await;
            }
            dhcp::News::Expired => {
                tracing::warn!(interface = port.name, "the DHCP lease has run out");
                self.apply(port, Uplink::default()).await;
            }
        }
    }

    /// Brings an interface to what it was told to use; once more where the kernel gave no answer.
    async fn apply(&mut self, port: &Port, uplink: Uplink) {
        for _ in 0..2 {
            let before = self.netlink.unanswered();
            self.bring(port, &uplink).await;
            if self.netlink.unanswered() == before {
                break;
            }
        }
        self.told.set(port, uplink);
    }

    async fn bring(&self, port: &Port, uplink: &Uplink) {
        let (index, metric) = (port.index, port.metric);
        let mut wrong = vec![];
        if uplink.mtu.is_some() {
            wrong.extend(self.netlink.up(index, uplink.mtu).await.err());
        }
        // Old ones first: with a network's first address the kernel takes its others away.
        wrong.extend(
            self.netlink
                .keep_addresses(index, &uplink.addresses, true)
                .await
                .err(),
        );
        // Two ways into one network: the radio's comes second.
        let second = (metric >= plan::WIRELESS).then_some(metric);
        for address in &uplink.addresses {
            let added = self.netlink.add_address(index, *address, second).await;
            wrong.extend(added.err());
        }
        for route in &uplink.routes {
            wrong.extend(self.netlink.add_route(index, route, metric).await.err());
        }
        for e in &wrong {
            tracing::warn!(interface = port.name, "{e:#}");
        }
    }

    fn look_for_overlap(&self, wanted: &Wanted) {
        let Some(ranges) = &wanted.plan else { return };
        let addresses: Vec<_> = self
            .told
            .uplinks()
            .borrow()
            .values()
            .flat_map(|u| u.addresses.clone())
            .collect();
        match plan::overlap(ranges, &addresses) {
            Some(text) => {
                self.notes.set("overlap", text);
            }
            None => self.notes.clear("overlap"),
        }
    }
}
