//! What passes through this member for others: relay channels, plain clients, streams.

use super::{Engine, Lighthouses, Table, hold};
use crate::keys::MeshKey;
use crate::outbox::Outbox;
use crate::packet::{self, Kind};
use crate::way::{Channel, Way};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

impl Engine {
    pub(super) fn lighthouses(&self) -> Arc<Lighthouses> {
        self.lighthouses
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks where lighthouses are, and sees to it that channels lead there.
    pub(super) fn find_lighthouses(&self, now: Instant) {
        let mut found = Lighthouses::default();
        for peer in self.table().by_key.values() {
            let state = peer.lock();
            if state.relay
                && let Some(at) = state.paths.current().and_then(Way::direct)
            {
                found.current.push((peer.key, at));
                found.all.push(at);
                found.all.extend(state.paths.places(now));
            }
        }
        found.current.sort_unstable();
        found.all.sort_unstable();
        found.all.dedup();
        if *self.lighthouses() != found {
            *self
                .lighthouses
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        }
    }

    /// The way through a channel that this member was given for `peer`.
    pub(super) fn relayed_way(&self, peer: MeshKey, lighthouses: &Lighthouses) -> Option<Way> {
        let (lighthouse, channel) = hold(&self.channels).get(&peer).copied()?;
        let (_, via) = lighthouses
            .current
            .iter()
            .find(|(key, _)| *key == lighthouse)?;
        Some(Way::Relayed { via: *via, channel })
    }

    /// `peer` may be reached through `lighthouse` on this channel.
    pub(crate) fn set_channel(
        &self,
        peer: MeshKey,
        lighthouse: MeshKey,
        channel: Channel,
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        let table = self.table();
        let Some(peer) = table.by_key.get(&peer) else {
            return false;
        };
        hold(&self.channels).insert(peer.key, (lighthouse, channel));
        self.find_lighthouses(now);
        let Some(way) = self.relayed_way(peer.key, &self.lighthouses()) else {
            return false;
        };
        let waits = hold(&self.pending).waits(peer.index);
        peer.lock().set_relay(Some(way), waits, out, now);
        true
    }

    /// A channel between two members for which this one relays.
    pub(crate) fn open_channel(&self, a: MeshKey, b: MeshKey, now: Instant) -> Option<Channel> {
        let table = self.table();
        let both = table.by_key.contains_key(&a) && table.by_key.contains_key(&b);
        if !both || a == b {
            return None;
        }
        hold(&self.relay).open(a, b, now)
    }

    /// Bounds each channel to so many bytes a second.
    pub(crate) fn limit_relay(&self, rate: f64) {
        hold(&self.relay).limit(rate);
        hold(&self.clients).limit(rate);
    }

    /// These peers have plain clients, for which this member passes datagrams on.
    pub(crate) fn set_nodes_with_clients(&self, keys: &[MeshKey]) {
        hold(&self.clients).set_nodes(keys);
        self.has_clients.store(!keys.is_empty(), Ordering::Relaxed);
    }

    pub(super) fn direct(&self, table: &Table, key: MeshKey) -> Option<SocketAddr> {
        let state = table.by_key.get(&key)?.lock();
        state.paths.current()?.direct()
    }

    /// What is nothing of this member's own may be a plain client's: it goes on to its node. No
    /// peer may be locked.
    pub(super) fn pass_to_node(
        &self,
        table: &Table,
        from: Way,
        kind: Kind,
        datagram: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) {
        let Some(source) = from.direct() else { return };
        if !self.has_clients.load(Ordering::Relaxed) {
            return;
        }
        let to = hold(&self.clients).inward(source, datagram, kind, now);
        if let Some((node, channel)) = to
            && let Some(via) = self.direct(table, node)
        {
            out.push(Way::Relayed { via, channel }, datagram);
        }
    }

    /// A node's answer on a plain client's channel goes on to the client; false when it is none. No
    /// peer may be locked.
    pub(super) fn pass_to_client(
        &self,
        table: &Table,
        channel: Channel,
        from: SocketAddr,
        inner: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        if !self.has_clients.load(Ordering::Relaxed) {
            return false;
        }
        let Some(node) = hold(&self.clients).node(channel) else {
            return false;
        };
        let stands = |node| {
            let state = table.by_key.get(&node)?.lock();
            Some(state.paths.stands_at(from, now))
        };
        if stands(node) == Some(true)
            && packet::classify(inner).is_some()
            && let Some(to) = hold(&self.clients).outward(channel, inner.len(), now)
        {
            out.push(Way::Direct(to), inner);
        }
        true
    }

    /// Passes packets on between a plain client and other peers.
    pub(super) fn pass_on(
        &self,
        table: &Table,
        packets: Vec<(u32, Vec<u8>)>,
        out: &mut Outbox,
        now: Instant,
    ) {
        for (index, packet) in packets {
            let Some(peer) = table.by_index.get(&index) else {
                continue;
            };
            let mut state = peer.lock();
            if !state.send(&packet, out, now) {
                hold(&self.pending).push(index, &packet, now);
                state.ask_if_due(true, out, now);
            }
        }
    }

    /// Where a relayed datagram goes on to; none: not ours, or not from one of its ends.
    pub(super) fn onward(
        &self,
        table: &Table,
        channel: Channel,
        from: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let ends = hold(&self.relay).ends(channel)?;
        let place = |key: MeshKey| {
            let mut state = table.by_key.get(&key)?.lock();
            state.paths.relays(now);
            // Only where the member answered: a place that it named may be anybody's.
            let confirmed = state.paths.confirmed();
            let at = state.paths.current()?.direct().filter(|_| confirmed);
            Some((at, state.paths.stands_at(from, now)))
        };
        match [place(ends[0])?, place(ends[1])?] {
            [(_, true), (other, _)] => other,
            [(one, _), (_, true)] => one,
            ends => {
                tracing::debug!("a relayed datagram from {from} is dropped: the ends are {ends:?}");
                None
            }
        }
    }

    /// `peer` is also reached by a stream now, which `at` stands for; false when it is no peer.
    pub(crate) fn stream_begun(
        &self,
        peer: MeshKey,
        at: SocketAddr,
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        let Some(peer) = self.peer(peer) else {
            return false;
        };
        peer.lock().stream(at, out, now);
        true
    }

    /// The stream that `at` stood for is no more.
    pub(crate) fn stream_ended(&self, at: SocketAddr, now: Instant) {
        for peer in self.table().by_key.values() {
            peer.lock().paths.gone(at, now);
        }
        self.find_lighthouses(now);
    }
}
