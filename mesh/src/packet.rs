//! Looking at datagrams and packets before anything else touches them.

use crate::stream::is_stream;
use std::net::{IpAddr, SocketAddr};

/// Largest datagram taken in: nothing longer fits a UDP packet, and boringtun panics on data
/// longer than its output buffer, before it authenticates.
pub(crate) const MAX_DATAGRAM: usize = 65_535;
/// WireGuard's data header (16) and tag (16).
pub(crate) const DATA_OVERHEAD: usize = 32;
/// Longest inner packet we send or take: a full IPv6 datagram would not fit a UDP packet.
pub(crate) const MAX_PACKET: usize = 65_507 - DATA_OVERHEAD;
/// WireGuard's `REJECT_AFTER_MESSAGES`, 2^64 - 2^13 - 1. boringtun does not check it, and adds
/// one to the counter it received.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A datagram by its first bytes and its length (WireGuard paper, section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Handshake initiation: the sender's key is inside.
    Initiation,
    /// Handshake response for our session index.
    Response(u32),
    /// Cookie reply for our session index.
    Cookie(u32),
    /// Data for our session index.
    Data(u32),
}

/// What the datagram claims to be; `None` for everything that is no WireGuard message.
pub(crate) fn classify(datagram: &[u8]) -> Option<Kind> {
    if datagram.len() > MAX_DATAGRAM {
        return None;
    }
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(
            datagram.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    match (word(0)?, datagram.len()) {
        (1, 148) => Some(Kind::Initiation),
        (2, 92) => Some(Kind::Response(word(8)?)),
        (3, 64) => Some(Kind::Cookie(word(4)?)),
        (4, DATA_OVERHEAD..) => {
            let counter = u64::from_le_bytes(datagram.get(8..16)?.try_into().ok()?);
            (counter < REJECT_AFTER_MESSAGES).then_some(Kind::Data(word(4)?))
        }
        _ => None,
    }
}

/// An answer to this source cannot do harm. Sending to port 0 fails with `EINVAL`, which would
/// turn segmentation offload off for good: anybody could forge that. Nor may anybody pass for a
/// stream.
pub(crate) fn answerable(source: SocketAddr) -> bool {
    let ip = source.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !is_stream(source)
        && source.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !broadcast
}

/// The destination of an inner packet; `None` when it is no IP packet.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?)),
        6 => Some(IpAddr::from(
            <[u8; 16]>::try_from(packet.get(24..40)?).ok()?,
        )),
        _ => None,
    }
}

/// Cuts a receive buffer at the stride that GRO reports; a stride of 0 gives one datagram.
pub(crate) fn datagrams(buffer: &[u8], stride: usize) -> impl Iterator<Item = &[u8]> {
    buffer.chunks(if stride == 0 {
        buffer.len().max(1)
    } else {
        stride
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn oversize_and_worn_out_counters_are_no_messages() {
        let mut data = vec![0u8; MAX_DATAGRAM + 1];
        data[0] = 4;
        assert_eq!(classify(&data), None);
        data.pop();
        assert_eq!(classify(&data), Some(Kind::Data(0)));
        data[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(classify(&data), None);
        data[8..16].copy_from_slice(&(REJECT_AFTER_MESSAGES - 1).to_le_bytes());
        assert_eq!(classify(&data), Some(Kind::Data(0)));
    }

    #[test]
    fn forged_sources_get_no_answer() {
        for text in [
            "192.0.2.1:0",
            "0.0.0.0:51820",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "[::]:1",
        ] {
            assert!(!answerable(text.parse().unwrap()), "{text}");
        }
        assert!(answerable("192.0.2.1:51820".parse().unwrap()));
    }

    #[test]
    fn a_batch_is_cut_at_its_stride() {
        let batch = [1u8, 1, 1, 2, 2, 2, 3];
        let parts: Vec<&[u8]> = datagrams(&batch, 3).collect();
        assert_eq!(parts, [&[1u8, 1, 1][..], &[2, 2, 2], &[3]]);
        assert_eq!(datagrams(&batch, 0).count(), 1);
        assert_eq!(datagrams(&[], 0).count(), 0);
    }

    proptest! {
        #[test]
        fn what_is_classified_boringtun_can_parse(
            kind in 0u8..6, mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            fit in any::<bool>(),
        ) {
            if let Some(first) = bytes.first_mut() { *first = kind; }
            if let Some(rest) = bytes.get_mut(1..4) { rest.fill(0); }
            if fit { bytes.resize([0, 148, 92, 64, 32, 0][kind as usize], 0); }
            let parsed = boringtun::noise::Tunn::parse_incoming_packet(&bytes).is_ok();
            if classify(&bytes).is_some() { prop_assert!(parsed); }
            destination(&bytes);
        }
    }
}
