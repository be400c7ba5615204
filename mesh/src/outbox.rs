//! Datagrams to send, laid out so that one system call sends many (UDP GSO).

use crate::way::{RELAY_HEADER, Way};
use std::net::SocketAddr;
use std::ops::Range;

/// Datagrams in one send; the kernel's `UDP_MAX_SEGMENTS` was 64 before Linux 6.9.
const MAX_SEGMENTS: usize = 64;
/// Bytes in one send: a UDP packet's 65,507 with room for IPv6 and options.
const MAX_BYTES: usize = 65_340;
/// A handshake message needs 148 bytes of room whatever is to be sent.
pub(crate) const MIN_ROOM: usize = 148;
/// Memory kept between batches.
const KEEP: usize = 256 * 1024;

/// One system call's worth: datagrams of equal length to one address, the last may be shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Send {
    pub to: SocketAddr,
    pub bytes: Range<usize>,
    pub segment: usize,
}

/// Datagrams are written one behind the other into one buffer and grouped as they come.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    buffer: Vec<u8>,
    used: usize,
    sends: Vec<Send>,
}

impl Outbox {
    /// Room for one datagram of at most `len` bytes on `way`; [`commit`](Self::commit) says what it
    /// became.
    pub(crate) fn room(&mut self, way: Way, len: usize) -> &mut [u8] {
        let end = self.used + RELAY_HEADER + len.max(MIN_ROOM);
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        let room = &mut self.buffer[self.used..];
        match way.header() {
            None => room,
            Some(header) => {
                let (before, room) = room.split_at_mut(RELAY_HEADER);
                before.copy_from_slice(&header);
                room
            }
        }
    }

    /// The first `len` bytes of the room given out last are a datagram for `way`.
    pub(crate) fn commit(&mut self, way: Way, len: usize) {
        let len = len + if way.is_relayed() { RELAY_HEADER } else { 0 };
        self.grow(way.next_hop(), len);
    }

    fn grow(&mut self, to: SocketAddr, len: usize) {
        let start = self.used;
        self.used += len;
        if let Some(last) = self.sends.last_mut()
            && takes(last, to, len)
        {
            last.bytes.end = self.used;
            return;
        }
        self.sends.push(Send {
            to,
            bytes: start..self.used,
            segment: len,
        });
    }

    /// Copies a finished datagram in.
    pub(crate) fn push(&mut self, way: Way, datagram: &[u8]) {
        self.room(way, datagram.len())[..datagram.len()].copy_from_slice(datagram);
        self.commit(way, datagram.len());
    }

    pub(crate) fn sends(&self) -> impl Iterator<Item = (&Send, &[u8])> {
        self.sends
            .iter()
            .map(|s| (s, &self.buffer[s.bytes.clone()]))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.sends.clear();
        self.used = 0;
        if self.buffer.len() > KEEP {
            self.buffer.truncate(KEEP);
            self.buffer.shrink_to_fit();
        }
    }
}

fn takes(last: &Send, to: SocketAddr, len: usize) -> bool {
    let full = last.bytes.len();
    last.to == to
        && len > 0
        && len <= last.segment
        && full.is_multiple_of(last.segment)
        && full / last.segment < MAX_SEGMENTS
        && full + len <= MAX_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_lost_reordered_or_too_large(
            datagrams in proptest::collection::vec(
                (0u16..2, prop_oneof![3 => Just(1412usize), 1 => 1usize..3000]), 0..300)
        ) {
            let mut outbox = Outbox::default();
            for (n, (port, len)) in datagrams.iter().enumerate() {
                outbox.push(Way::Direct(([192, 0, 2, 1], *port).into()), &vec![n as u8; *len]);
            }
            let mut cut: Vec<(u16, Vec<u8>)> = Vec::new();
            for (send, bytes) in outbox.sends() {
                prop_assert!(bytes.len() <= MAX_BYTES.max(send.segment));
                prop_assert!(bytes.len().div_ceil(send.segment) <= MAX_SEGMENTS);
                cut.extend(bytes.chunks(send.segment).map(|c| (send.to.port(), c.to_vec())));
            }
            let want: Vec<(u16, Vec<u8>)> = datagrams
                .iter()
                .enumerate()
                .map(|(n, (port, len))| (*port, vec![n as u8; *len]))
                .collect();
            prop_assert_eq!(cut, want);
        }
    }

    #[test]
    fn a_full_read_of_the_tun_is_two_sends() {
        let mut outbox = Outbox::default();
        for _ in 0..50 {
            outbox.push(Way::Direct(([192, 0, 2, 1], 1).into()), &[0; 1412]);
        }
        assert_eq!(
            outbox
                .sends()
                .map(|(_, b)| b.len() / 1412)
                .collect::<Vec<_>>(),
            [46, 4]
        );
    }
}
