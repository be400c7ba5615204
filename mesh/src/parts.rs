//! Datagrams cut in two for a narrow IPv6 path, by the sender itself, and put together again.
//!
//! IPv6 routers cut nothing, and Linux cuts at the source only what its own interface does not carry,
//! also where `IPV6_MTU` says less (seen with Linux 6.18). So what a path was found not to carry travels as
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `hfc` and the version, 1: no WireGuard message begins so |
//! | 4..8 | the datagram's number, little-endian |
//! | 8 | which half: 0 or 1 |
//! | 9.. | that half |
//!
//! Whoever forges halves spoils datagrams on their way at most: what comes of two halves is checked as
//! if it had come whole.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// First bytes of a half.
const MAGIC: [u8; 4] = *b"hfc\x01";
const HEADER: usize = 9;
/// Longest half, of a datagram that is twice as long.
const MAX_HALF: usize = 1280;
/// Halves that wait for their others; together with [`MAX_HALF`] this bounds the memory, 330 kB.
const SLOTS: usize = 256;
/// A half waits no longer. Both leave at the same time.
const AGE: Duration = Duration::from_secs(2);

/// One half, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'d> {
    number: u32,
    second: bool,
    bytes: &'d [u8],
}

/// `datagram` as two.
pub(crate) fn cut(datagram: &[u8], number: u32) -> [Vec<u8>; 2] {
    let (first, second) = datagram.split_at(datagram.len().div_ceil(2));
    [(0, first), (1, second)].map(|(which, half)| {
        let mut part = Vec::with_capacity(HEADER + half.len());
        part.extend(MAGIC);
        part.extend(number.to_le_bytes());
        part.push(which);
        part.extend(half);
        part
    })
}

/// What `datagram` is a half of; none when it is whole.
pub(crate) fn part(datagram: &[u8]) -> Option<Part<'_>> {
    let rest = datagram.strip_prefix(&MAGIC)?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let (which, bytes) = rest.split_first()?;
    (*which < 2 && bytes.len() <= MAX_HALF).then_some(Part {
        number: u32::from_le_bytes(*number),
        second: *which == 1,
        bytes,
    })
}

#[derive(Debug)]
struct Waiting {
    from: SocketAddr,
    number: u32,
    second: bool,
    bytes: Vec<u8>,
    since: Instant,
}

/// Halves that came before their others.
#[derive(Debug)]
pub(crate) struct Parts {
    slots: Vec<Option<Waiting>>,
    /// Nobody outside knows which slot a half takes.
    places: RandomState,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            slots: std::iter::repeat_with(|| None).take(SLOTS).collect(),
            places: RandomState::new(),
        }
    }
}

impl Parts {
    /// The datagram, once both halves came from one place. Only from IPv6: nobody cuts so elsewhere.
    pub(crate) fn join(
        &mut self,
        from: SocketAddr,
        part: Part<'_>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        if !from.is_ipv6() {
            return None;
        }
        let place = self.places.hash_one((from, part.number)) as usize % SLOTS;
        let slot = self.slots.get_mut(place)?;
        let other = slot.take_if(|w| {
            let same = w.from == from && w.number == part.number && w.second != part.second;
            same && now.saturating_duration_since(w.since) < AGE
        });
        let Some(mut other) = other else {
            *slot = Some(Waiting {
                from,
                number: part.number,
                second: part.second,
                bytes: part.bytes.to_vec(),
                since: now,
            });
            return None;
        };
        if part.second {
            other.bytes.extend(part.bytes);
            return Some(other.bytes);
        }
        Some([part.bytes, &other.bytes].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::classify;
    use proptest::prelude::*;

    fn place(n: u16) -> SocketAddr {
        (std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n), n).into()
    }

    proptest! {
        #[test]
        fn halves_make_a_whole_in_either_order_and_from_one_place_only(
            bytes in proptest::collection::vec(any::<u8>(), 2..1472), number: u32, turned: bool,
        ) {
            let (mut parts, now) = (Parts::default(), Instant::now());
            let mut halves = cut(&bytes, number);
            prop_assert!(halves.iter().all(|h| h.len() <= HEADER + bytes.len().div_ceil(2)));
            prop_assert!(halves.iter().all(|h| classify(h).is_none()));
            if turned {
                halves.reverse();
            }
            let [first, second] = [part(&halves[0]).unwrap(), part(&halves[1]).unwrap()];
            prop_assert_eq!(parts.join(place(1), first, now), None);
            prop_assert_eq!(parts.join(place(1), second, now), Some(bytes));
            // A half that is repeated, or from elsewhere, or too late, makes nothing.
            prop_assert_eq!(parts.join(place(1), second, now), None);
            prop_assert_eq!(parts.join(place(1), second, now), None);
            prop_assert_eq!(parts.join(place(2), first, now), None);
            let v4 = "192.0.2.1:1".parse().unwrap();
            prop_assert_eq!(parts.join(v4, first, now), None);
            prop_assert_eq!(parts.join(v4, second, now), None);
            let mut parts = Parts::default();
            prop_assert_eq!(parts.join(place(1), first, now), None);
            prop_assert_eq!(parts.join(place(1), second, now + AGE), None);
        }

        #[test]
        fn any_bytes_are_taken_and_memory_is_bounded(
            datagrams in proptest::collection::vec(
                (0u16..9, proptest::collection::vec(any::<u8>(), 0..100)), 0..600),
        ) {
            let (mut parts, now) = (Parts::default(), Instant::now());
            for (from, bytes) in datagrams {
                let framed = [&MAGIC[..], &bytes].concat();
                for datagram in [&bytes, &framed] {
                    if let Some(part) = part(datagram) {
                        parts.join(place(from), part, now);
                    }
                }
            }
            prop_assert_eq!(parts.slots.len(), SLOTS);
            let long = [&MAGIC[..], &[0; 5 + MAX_HALF + 1]].concat();
            prop_assert_eq!(part(&long), None);
        }
    }
}
