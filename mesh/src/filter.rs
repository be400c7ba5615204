//! Which inner packets are let in: the policy's rules, where every packet passes anyway.
//!
//! A packet is judged after decryption, by the member that it came from. What that one may begin is
//! let in; beyond that, answers to what this member began:
//!
//! - TCP needs no memory for that: every segment but the first of a connection has ACK or RST, and
//!   the kernel has no connection for a stray one. So connections outlive an agent that dies.
//! - Of UDP and the rest each flow that went out is remembered, in a table of fixed size; an entry
//!   gives way after three quiet minutes, or to newer ones.
//! - Echo replies pass where requests may go out; errors (unreachable, too big) always do: the kernel
//!   takes them only for what it sent itself.
//!
//! A first fragment too short for its ports is dropped, later ones pass: without their first nothing
//! comes of them, and the kernel drops what overlaps. IPv6 extension headers are walked, a bounded
//! number; a routing header, or one not known, is dropped. Where a peer may do everything nothing is
//! looked at.

use crate::packet;
use holdfast_core::access::{Access, Allowed};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// A TCP header without options.
const TCP_HEADER: usize = 20;
/// IPv6 extension headers of one packet.
const HEADERS: usize = 8;
/// Seconds after which a silent flow is forgotten: as long as NATs keep a busy one.
const QUIET: u32 = 180;
/// Flows remembered: 512 kB.
const FLOWS: usize = 65_536;
/// Entries that one flow may be in; the oldest of them gives way.
const WAYS: usize = 4;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Source and destination port; whether a TCP segment begins a connection.
    Ports(u16, u16, bool),
    Icmp(u8),
    Other,
    /// Not the first fragment.
    Rest,
}

/// None: not to be let in where anything is forbidden.
fn see(packet: &[u8]) -> Option<Seen> {
    match packet.first()? >> 4 {
        4 => see4(packet),
        6 => see6(packet),
        _ => None,
    }
}

fn see4(packet: &[u8]) -> Option<Seen> {
    let head = packet.first_chunk::<20>()?;
    let length = usize::from(head[0] & 15) * 4;
    if length < 20 {
        return None;
    }
    let four = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes).into())
    };
    let fragment = u16::from_be_bytes([head[6], head[7]]);
    let (offset, more) = (fragment & 0x1fff, fragment & 0x2000 != 0);
    Some(Seen {
        from: four(12)?,
        to: four(16)?,
        protocol: head[9],
        body: body(head[9], packet.get(length..)?, offset, more)?,
    })
}

fn see6(packet: &[u8]) -> Option<Seen> {
    let head = packet.first_chunk::<40>()?;
    let sixteen = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).into())
    };
    let (mut next, mut at) = (head[6], 40);
    let (mut offset, mut more) = (0, false);
    for _ in 0..HEADERS {
        let here = packet.get(at..)?;
        match next {
            // Hop by hop, destination options.
            0 | 60 => {
                next = *here.first()?;
                at += 8 * (usize::from(*here.get(1)?) + 1);
            }
            // Fragment.
            44 => {
                let fragment = u16::from_be_bytes([*here.get(2)?, *here.get(3)?]);
                (offset, more) = (fragment >> 3, fragment & 1 != 0);
                next = *here.first()?;
                at += 8;
                if offset > 0 {
                    break;
                }
            }
            _ => break,
        }
    }
    // Headers not known here, or too many of them: it might be anything.
    if matches!(next, 0 | 43 | 44 | 59 | 60 | 135 | 139 | 140 | 253 | 254) {
        return None;
    }
    Some(Seen {
        from: sixteen(8)?,
        to: sixteen(24)?,
        protocol: next,
        body: body(next, packet.get(at..)?, offset, more)?,
    })
}

fn body(protocol: u8, bytes: &[u8], offset: u16, more: bool) -> Option<Body> {
    let ports = || -> Option<(u16, u16)> {
        let [a, b, c, d] = *bytes.first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    };
    if offset > 0 {
        // RFC 3128: the second eight bytes of a TCP header do not come by themselves.
        return (protocol != TCP || offset > 2).then_some(Body::Rest);
    }
    match protocol {
        TCP => {
            let flags = bytes.get(TCP_HEADER - 1).and(bytes.get(13))?;
            let (from, to) = ports()?;
            let begins = flags & SYN != 0 && flags & ACK == 0 || flags & (ACK | RST) == 0;
            Some(Body::Ports(from, to, begins))
        }
        UDP => {
            let (from, to) = ports()?;
            (bytes.len() >= 8).then_some(Body::Ports(from, to, false))
        }
        // An error in pieces is none that a host sends.
        ICMP | ICMPV6 => (!more).then_some(Body::Icmp(*bytes.first()?)),
        _ => Some(Body::Other),
    }
}

/// What an ICMP message is.
fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        ICMP => matches!(kind, 3 | 11 | 12),
        _ => matches!(kind, 1..=4),
    }
}

/// Flows that this member began: a tag and the second of the last packet in each entry.
pub(crate) struct Flows {
    entries: Box<[AtomicU64]>,
    /// So that nobody outside knows which flows share entries.
    keys: [u64; 2],
    begun: Instant,
}

impl Default for Flows {
    fn default() -> Self {
        // Without a random source any keys will do.
        let key = |other: u64| getrandom::u64().unwrap_or(other) | 1;
        Self {
            entries: (0..FLOWS).map(|_| AtomicU64::new(0)).collect(),
            keys: [key(0x9e37_79b9_7f4a_7c15), key(0xd1b5_4a32_d192_ed03)],
            begun: Instant::now(),
        }
    }
}

impl Flows {
    /// Where a flow's entries begin, and its tag, which is never 0.
    fn place(&self, ours: (IpAddr, u16), theirs: (IpAddr, u16), protocol: u8) -> (usize, u32) {
        let mut hash = self.keys[0] ^ u64::from(protocol);
        let mut mix = |word: u64| {
            let wide = u128::from(hash ^ word).wrapping_mul(u128::from(self.keys[1]));
            hash = (wide as u64) ^ ((wide >> 64) as u64);
        };
        for (address, port) in [ours, theirs] {
            match address {
                IpAddr::V4(a) => mix(u64::from(a.to_bits()) << 16 | u64::from(port)),
                IpAddr::V6(a) => {
                    mix(a.to_bits() as u64);
                    mix((a.to_bits() >> 64) as u64);
                    mix(u64::from(port));
                }
            }
        }
        mix(self.keys[0]);
        let set = hash as usize % (FLOWS / WAYS) * WAYS;
        (set, (hash >> 32) as u32 | 1)
    }

    fn second(&self, now: Instant) -> u32 {
        // From 1 on: 0 is an entry that was never used.
        let passed = now.saturating_duration_since(self.begun).as_secs();
        u32::try_from(passed).unwrap_or(u32::MAX - 1) + 1
    }

    fn find(&self, set: usize, tag: u32, now: u32) -> Option<&AtomicU64> {
        self.entries[set..set + WAYS].iter().find(|entry| {
            let held = entry.load(Ordering::Relaxed);
            let (of, at) = ((held >> 32) as u32, held as u32);
            of == tag && at > 0 && now.saturating_sub(at) <= QUIET
        })
    }

    fn note(&self, (set, tag): (usize, u32), now: u32) {
        let oldest = || {
            let set = self.entries[set..set + WAYS].iter();
            set.min_by_key(|entry| entry.load(Ordering::Relaxed) as u32)
        };
        if let Some(entry) = self.find(set, tag, now).or_else(oldest) {
            entry.store(u64::from(tag) << 32 | u64::from(now), Ordering::Relaxed);
        }
    }

    fn knows(&self, (set, tag): (usize, u32), now: u32) -> bool {
        let Some(entry) = self.find(set, tag, now) else {
            return false;
        };
        entry.store(u64::from(tag) << 32 | u64::from(now), Ordering::Relaxed);
        true
    }
}

/// Who may send what. A member is known by its inner address, which is checked against its key
/// before: also one that is reached through another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// This member's own addresses: a packet for any other, which the system might route on to pods,
    /// services or other machines, is not let in. Empty: that is not looked at.
    pub here: Vec<IpAddr>,
    /// Between this member and others; one that is not named gets nothing in.
    pub own: HashMap<IpAddr, Access>,
    /// Between plain clients that are reached through this member, first, and others: plain clients
    /// judge nothing themselves. None: nothing is forbidden.
    pub through: Option<HashMap<(IpAddr, IpAddr), Access>>,
    /// Those clients.
    pub clients: HashSet<IpAddr>,
}

/// Whether this member may begin what is answered without a rule, but by flow.
fn may_be_answered(ours: &Allowed) -> bool {
    ours.everything || !ours.udp.is_empty()
}

/// The rules, applied.
pub struct Filter {
    rules: Rules,
    flows: Arc<Flows>,
    /// Somebody's answers are let in only as such: what goes out is looked at.
    tracks: bool,
}

impl Filter {
    pub(crate) fn new(rules: Rules, flows: Arc<Flows>) -> Self {
        let narrow = |a: &Access| !a.theirs.everything && may_be_answered(&a.ours);
        let through = rules.through.iter().flat_map(HashMap::values);
        let tracks = rules.own.values().chain(through).any(narrow);
        Self {
            rules,
            flows,
            tracks,
        }
    }

    /// A filter of its own, to measure it.
    #[must_use]
    pub fn alone(rules: Rules) -> Self {
        Self::new(rules, Arc::default())
    }

    /// Whether a packet is for this member itself.
    #[must_use]
    pub fn is_for_here(&self, packet: &[u8]) -> bool {
        let here = &self.rules.here;
        here.is_empty() || packet::destination(packet).is_some_and(|to| here.contains(&to))
    }

    /// The rules for the member at `source`.
    #[must_use]
    pub fn of(&self, source: IpAddr) -> Option<&Access> {
        self.rules.own.get(&source)
    }

    /// A packet goes out: what may answer it is remembered.
    pub fn sent(&self, packet: &[u8], now: Instant) {
        if let Some(to) = packet::destination(packet).filter(|_| self.tracks) {
            self.note(self.of(to), packet, now);
        }
    }

    fn note(&self, access: Option<&Access>, packet: &[u8], now: Instant) {
        if access.is_none_or(|a| a.theirs.everything || !may_be_answered(&a.ours)) {
            return;
        }
        let Some(seen) = see(packet) else { return };
        let (ours, theirs) = match seen.body {
            Body::Ports(from, to, _) if seen.protocol == UDP => (from, to),
            Body::Other => (0, 0),
            _ => return,
        };
        let place = self
            .flows
            .place((seen.from, ours), (seen.to, theirs), seen.protocol);
        self.flows.note(place, self.flows.second(now));
    }

    /// Whether a packet from `source` to or from a client goes on.
    #[must_use]
    pub fn forwards(&self, source: IpAddr, packet: &[u8], now: Instant) -> bool {
        let Some(through) = &self.rules.through else {
            return true;
        };
        let Some(to) = packet::destination(packet) else {
            return false;
        };
        // Where it goes it is judged as the client's, unless a client it is again. Where no rule leads
        // it does not go at all: it would wake who has nothing to do with it.
        let nothing = |a: &Access| a.theirs == Allowed::default() && a.ours == Allowed::default();
        if self.rules.clients.contains(&source) && through.get(&(source, to)).is_none_or(nothing) {
            return false;
        }
        self.note(through.get(&(source, to)), packet, now);
        !self.rules.clients.contains(&to) || self.admits(through.get(&(to, source)), packet, now)
    }

    /// Whether a packet from a member with `access` is let in.
    #[must_use]
    pub fn admits(&self, access: Option<&Access>, packet: &[u8], now: Instant) -> bool {
        let Some(access) = access else { return false };
        if access.theirs.everything {
            return true;
        }
        let Some(seen) = see(packet) else {
            return false;
        };
        let (theirs, ours) = (&access.theirs, &access.ours);
        let began = |from: u16, to: u16| {
            let place = self
                .flows
                .place((seen.to, to), (seen.from, from), seen.protocol);
            self.flows.knows(place, self.flows.second(now))
        };
        match (seen.protocol, seen.body) {
            (TCP, Body::Ports(from, to, begins)) => {
                theirs.tcp.contains(to) || !begins && ours.tcp.contains(from)
            }
            (TCP, _) => !theirs.tcp.is_empty() || !ours.tcp.is_empty(),
            (UDP, Body::Ports(from, to, _)) => {
                theirs.udp.contains(to) || ours.udp.contains(from) && began(from, to)
            }
            (UDP, _) => !theirs.udp.is_empty() || !ours.udp.is_empty(),
            (protocol @ (ICMP | ICMPV6), Body::Icmp(kind)) => {
                let (request, reply) = if protocol == ICMP { (8, 0) } else { (128, 129) };
                is_error(protocol, kind)
                    || kind == request && theirs.icmp
                    || kind == reply && ours.icmp
            }
            (ICMP | ICMPV6, _) => theirs.icmp || ours.icmp,
            (_, Body::Rest) => ours.everything,
            _ => ours.everything && began(0, 0),
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
