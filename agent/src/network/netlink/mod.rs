//! What the agent asks of the kernel's routing socket.

mod routes;

use super::plan::Link;
use crate::forever::forever;
use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use rtnetlink::{Error, Handle, LinkUnspec, MulticastGroup};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// What the kernel tells of by itself.
const LISTENED: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// The kernel answers at once, but for a moment in which it waits for itself. Where it has no room for
/// an answer it drops that: then none ever comes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The routing socket; clones share it.
#[derive(Clone)]
pub struct Netlink {
    pub(super) handle: Handle,
    patience: Duration,
    /// Requests that were given up.
    unanswered: Arc<AtomicU64>,
    /// Of the socket that listens: it lives as long.
    _listens: Handle,
    /// Counts changes of links and addresses.
    changes: Arc<watch::Sender<u64>>,
}

impl Netlink {
    /// Opens the socket, and another one that listens for changes of links and addresses: where the
    /// kernel has more to tell than the socket holds it drops answers too, and nobody would ask again.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open() -> anyhow::Result<Self> {
        let unopened = "the kernel's routing socket cannot be opened";
        let (connection, handle, _) = rtnetlink::new_connection().context(unopened)?;
        forever("netlink", connection);
        let (connection, listens, mut events) =
            rtnetlink::new_multicast_connection(&LISTENED).context(unopened)?;
        forever("netlink events", connection);
        let changes = Arc::new(watch::Sender::new(0));
        let told = changes.clone();
        forever("links", async move {
            while events.next().await.is_some() {
                told.send_modify(|n| *n += 1);
            }
        });
        Ok(Self {
            handle,
            patience: PATIENCE,
            unanswered: Arc::default(),
            _listens: listens,
            changes,
        })
    }

    /// Told of each change of a link or an address.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits for the kernel, but not for ever.
    ///
    /// # Errors
    /// As the kernel says; [`Error::RequestFailed`] when it says nothing.
    pub(super) async fn answer<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout(self.patience, request).await {
            Ok(answer) => answer,
            Err(_) => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                Err(Error::RequestFailed)
            }
        }
    }

    /// How many requests were given up until now, because no answer came.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// All Ethernet interfaces.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn links(&self) -> anyhow::Result<Vec<Link>> {
        let mut all = self.handle.link().get().execute();
        let mut out = vec![];
        while let Some(message) = self.answer(all.try_next()).await? {
            if message.header.link_layer_type != LinkLayerType::Ether {
                continue;
            }
            let mut link = Link {
                index: message.header.index,
                name: String::new(),
                mac: vec![],
                physical: false,
                wireless: false,
                up: message.header.flags.contains(LinkFlags::Up),
                carrier: message.header.flags.contains(LinkFlags::LowerUp),
            };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Address(mac) => link.mac = mac,
                    _ => {}
                }
            }
            let shown = Path::new("/sys/class/net").join(&link.name);
            link.physical = shown.join("device").exists();
            link.wireless = shown.join("phy80211").exists();
            if link.wireless {
                // A radio has a carrier as soon as it talks to an access point, and is of use once
                // keys are agreed on (RFC 2863: no longer dormant).
                link.carrier = message.header.flags.contains(LinkFlags::Running);
            }
            out.push(link);
        }
        Ok(out)
    }

    /// The number of the interface `name`, if there is one.
    ///
    /// # Errors
    /// As the kernel says, other than that there is none.
    pub async fn index_of(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match self.answer(found.try_next()).await {
            Ok(message) => Ok(message.map(|m| m.header.index)),
            Err(Error::NetlinkError(e)) if e.raw_code() == -libc::ENODEV => Ok(None),
            Err(e) => Err(e).with_context(|| format!("interface {name}")),
        }
    }

    /// Sets an interface up, and its MTU where one is given.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn up(&self, index: u32, mtu: Option<u16>) -> anyhow::Result<()> {
        let mut link = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            link = link.mtu(mtu.into());
        }
        let set = self.handle.link().set(link.build()).execute();
        self.answer(set)
            .await
            .context("the interface does not come up")
    }

    /// Adds an address, or leaves it as it is; `metric`: of the route to its network, which else is
    /// the kernel's, before all others.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn add_address(
        &self,
        index: u32,
        address: IpNet,
        metric: Option<u32>,
    ) -> anyhow::Result<()> {
        let mut request = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len())
            .replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.extend(metric.map(AddressAttribute::RoutePriority));
        self.answer(request.execute())
            .await
            .with_context(|| format!("address {address}"))
    }

    /// Takes every address of an interface away that is not wanted, but for IPv6 ones that the
    /// kernel made itself. `family4`: look at IPv4 ones only.
    ///
    /// # Errors
    /// As the kernel says.
    pub async fn keep_addresses(
        &self,
        index: u32,
        wanted: &[IpNet],
        family4: bool,
    ) -> anyhow::Result<()> {
        let mut all = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        let mut gone = vec![];
        while let Some(message) = self.answer(all.try_next()).await? {
            let address = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let Some(address) = address else { continue };
            let ours = match address {
                IpAddr::V4(_) => true,
                IpAddr::V6(a) => !family4 && !a.is_unicast_link_local(),
            };
            let stays = wanted
                .iter()
                .any(|w| w.addr() == address && w.prefix_len() == message.header.prefix_len);
            if ours && !stays {
                gone.push(message);
            }
        }
        for message in gone {
            self.answer(self.handle.address().del(message).execute())
                .await
                .context("an old address stays")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub mod tests;
