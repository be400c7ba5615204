//! Packets and datagrams on their way.

use super::{Engine, PacketSink, Table, hold};
use crate::MTU;
use crate::batch::Batch;
use crate::keys::MeshKey;
use crate::mss;
use crate::outbox::{MIN_ROOM, Outbox};
use crate::packet::{self, Kind, MAX_PACKET};
use crate::parts;
use crate::peer::{Peer, PeerState, Received};
use crate::probe::{self, Tag};
use crate::way::{self, Channel, Way};
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, TunnResult};
use holdfast_core::access::Access;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

/// Whom a handshake message is for.
pub(super) enum Meant<'t> {
    /// A peer.
    Peer(&'t Arc<Peer>),
    /// No peer of this member's.
    Other,
    /// Nobody: its source sent too many, or has to show that it receives there.
    Dropped,
}

impl Engine {
    /// Packets from the device: encrypted into `out`, or kept until there is a session. Each
    /// peer is locked once.
    pub(crate) fn outbound(&self, batch: &mut Batch, out: &mut Outbox, now: Instant) {
        let table = self.table();
        let filter = self.filter();
        let mut last: Option<(IpAddr, Option<u32>)> = None;
        batch.sort(|packet| {
            let to = packet::destination(packet)?;
            match last {
                Some((addr, index)) if addr == to => index,
                _ => {
                    let index = table.routes.lookup(to);
                    last = Some((to, index));
                    index
                }
            }
        });
        let mut next = 0;
        while let Some((index, frames)) = batch.group(next) {
            next = frames.end;
            let Some(peer) = index.and_then(|index| table.by_index.get(&index)) else {
                continue;
            };
            let mut state = peer.lock();
            let mtu = state.inner_mtu();
            for frame in frames {
                let Some(mut segments) = batch.segments(frame) else {
                    continue;
                };
                while let Some(packet) = segments.next() {
                    if let Some(filter) = &filter {
                        filter.sent(packet, now);
                    }
                    let lower = mss::clamped(packet, mtu);
                    let packet = lower.as_deref().unwrap_or(packet);
                    if packet.len() <= MAX_PACKET && !state.send(packet, out, now) {
                        hold(&self.pending).push(peer.index, packet, now);
                        state.ask_if_due(true, out, now);
                    }
                }
            }
        }
    }

    /// A receive buffer from the socket, cut at `stride`: inner packets go to `sink`, answers to
    /// `out`.
    pub(crate) fn inbound(
        &self,
        from: SocketAddr,
        buffer: &[u8],
        stride: usize,
        sink: &mut impl PacketSink,
        out: &mut Outbox,
        now: Instant,
    ) {
        if packet::answerable(from) {
            self.inbound_at(from, buffer, stride, sink, out, now);
        }
    }

    /// [`inbound`](Self::inbound) of what may have come by a stream, which `from` stands for.
    pub(crate) fn inbound_at(
        &self,
        from: SocketAddr,
        buffer: &[u8],
        stride: usize,
        sink: &mut impl PacketSink,
        out: &mut Outbox,
        now: Instant,
    ) {
        let table = self.table();
        let mut current: Option<(&Peer, MutexGuard<'_, PeerState>)> = None;
        // A batch is mostly one peer's, from one address: looked up once.
        let mut own_source: Option<(u32, IpAddr)> = None;
        let mut passing: Option<(Channel, SocketAddr)> = None;
        let mut onward = vec![];
        let lighthouses = self.lighthouses();
        let filter = self.filter();
        let mut access: Option<(IpAddr, Option<&Access>)> = None;
        let mut mtu = MTU;
        for datagram in packet::datagrams(buffer, stride) {
            let whole;
            let datagram = match parts::part(datagram) {
                None => datagram,
                Some(part) => match hold(&self.parts).join(from, part, now) {
                    None => continue,
                    Some(both) => {
                        whole = both;
                        whole.as_slice()
                    }
                },
            };
            let (way, datagram) = match way::relayed(datagram) {
                None => (Way::Direct(from), datagram),
                Some((channel, inner)) if lighthouses.all.contains(&from) => {
                    (Way::Relayed { via: from, channel }, inner)
                }
                Some((channel, inner)) => {
                    if self.has_clients.load(Ordering::Relaxed) {
                        drop(current.take());
                        if self.pass_to_client(&table, channel, from, inner, out, now) {
                            continue;
                        }
                    }
                    if passing.is_none_or(|(of, _)| of != channel) {
                        // The lock is given back before others are taken.
                        drop(current.take());
                        passing = self
                            .onward(&table, channel, from, now)
                            .map(|to| (channel, to));
                    }
                    if let Some((_, to)) = passing
                        && hold(&self.relay).pass(channel, datagram.len(), now)
                    {
                        out.push(Way::Direct(to), datagram);
                    }
                    continue;
                }
            };
            if let Some(tag) = probe::tag(datagram) {
                drop(current.take());
                self.probed(&table, tag, datagram, way, out, now);
                continue;
            }
            let Some(kind) = packet::classify(datagram) else {
                continue;
            };
            let same = |index: u32| {
                current
                    .as_ref()
                    .is_some_and(|(peer, _)| peer.index == index)
            };
            let wanted = match kind {
                Kind::Data(index) if same(index >> 8) => None,
                Kind::Data(index) => Some(table.by_index.get(&(index >> 8))),
                _ => match self.handshake_peer(&table, kind, way, datagram, out, now) {
                    Meant::Peer(peer) => Some(Some(peer)),
                    Meant::Other => Some(None),
                    Meant::Dropped => continue,
                },
            };
            match wanted {
                None => {}
                Some(None) => {
                    drop(current.take());
                    self.pass_to_node(&table, way, kind, datagram, out, now);
                    continue;
                }
                Some(Some(peer)) if same(peer.index) => {}
                Some(Some(peer)) => {
                    drop(current.take());
                    let state = peer.lock();
                    mtu = state.inner_mtu();
                    current = Some((peer, state));
                }
            }
            let Some((peer, state)) = current.as_mut() else {
                continue;
            };
            let roam = !matches!(kind, Kind::Cookie(_));
            let room = sink.room(datagram.len().max(MIN_ROOM));
            match state.receive(datagram, way, roam, room, out, now) {
                Received::Refused => {
                    drop(current.take());
                    self.pass_to_node(&table, way, kind, datagram, out, now);
                    continue;
                }
                Received::Authentic => {}
                Received::Packet(len, source) => {
                    if own_source == Some((peer.index, source))
                        || table.routes.lookup(source) == Some(peer.index)
                    {
                        own_source = Some((peer.index, source));
                        let packet = sink.held(len);
                        if let Some(lower) = mss::clamped(packet, mtu) {
                            packet.copy_from_slice(&lower);
                        }
                        let to = table.onward(peer.index, packet);
                        let admitted = filter.as_ref().is_none_or(|filter| match to {
                            Some(_) => filter.forwards(source, packet, now),
                            None if !filter.is_for_here(packet) => false,
                            None => {
                                if access.is_none_or(|(of, _)| of != source) {
                                    access = Some((source, filter.of(source)));
                                }
                                filter.admits(access.and_then(|(_, of)| of), packet, now)
                            }
                        });
                        match to {
                            _ if !admitted => {}
                            Some(to) => onward.push((to, packet.to_vec())),
                            None => sink.take(len),
                        }
                    } else {
                        tracing::debug!("{} sent a packet from {source}, not its own", peer.key);
                    }
                }
            }
            if state.settle(peer.index, &self.pending, out, now) {
                self.sessions.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
        drop(current);
        self.pass_on(&table, onward, out, now);
    }

    /// A probe that bears some peer's tag.
    pub(super) fn probed(
        &self,
        table: &Table,
        tag: Tag,
        datagram: &[u8],
        way: Way,
        out: &mut Outbox,
        now: Instant,
    ) {
        let Some(peer) = table.by_tag.get(&tag) else {
            return;
        };
        let waits = hold(&self.pending).waits(peer.index);
        let (before, after) = {
            let mut state = peer.lock();
            let before = state.paths.current();
            state.probed(datagram, way, waits, out, now);
            (before.filter(|_| state.relay), state.paths.current())
        };
        if before.is_some() && before != after {
            self.find_lighthouses(now);
        }
    }

    /// Whom a handshake message is for, once both limiters have let it pass.
    pub(super) fn handshake_peer<'t>(
        &self,
        table: &'t Table,
        kind: Kind,
        way: Way,
        datagram: &[u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Meant<'t> {
        if !hold(&self.sources).allow(way, now) {
            return Meant::Dropped;
        }
        let mut cookie = [0u8; 64];
        let parsed =
            match self
                .front
                .verify_packet(Some(way.next_hop().ip()), datagram, &mut cookie)
            {
                Ok(parsed) => parsed,
                Err(TunnResult::WriteToNetwork(reply)) => {
                    out.push(way, reply);
                    return Meant::Dropped;
                }
                Err(_) => return Meant::Other,
            };
        let peer = match (kind, parsed) {
            (Kind::Initiation, Packet::HandshakeInit(init)) => {
                parse_handshake_anon(&self.secret, &self.public, &init)
                    .ok()
                    .and_then(|half| table.by_key.get(&MeshKey(half.peer_static_public)))
            }
            (Kind::Response(index) | Kind::Cookie(index), _) => table.by_index.get(&(index >> 8)),
            _ => None,
        };
        peer.map_or(Meant::Other, Meant::Peer)
    }
}
