//! The way a datagram takes to a peer, and the header of relayed ones.
//!
//! A relayed datagram travels between member and lighthouse as
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `hfr` and the version, 1: no WireGuard message begins so (its second byte is 0) |
//! | 4..12 | the channel, little-endian |
//! | 12.. | the datagram, as it would go directly |

use crate::stream::is_stream;
use std::fmt;
use std::net::SocketAddr;

/// First bytes of a relayed datagram.
const MAGIC: [u8; 4] = *b"hfr\x01";
/// Length of the header in bytes.
pub(crate) const RELAY_HEADER: usize = 12;

/// A relay channel: random, one for each pair of members, known to them and the lighthouse.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(pub u64);

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({:016x})", self.0)
    }
}

/// How a datagram reaches a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// To the peer's own address, or to its NAT's.
    Direct(SocketAddr),
    /// Through a lighthouse.
    Relayed {
        /// The lighthouse's address.
        via: SocketAddr,
        /// The pair's channel there.
        channel: Channel,
    },
}

impl Way {
    /// Where the datagram is sent to.
    #[must_use]
    pub fn next_hop(self) -> SocketAddr {
        match self {
            Self::Direct(to) => to,
            Self::Relayed { via, .. } => via,
        }
    }

    /// The peer's address, or its stream's; none when it is relayed.
    pub(crate) fn direct(self) -> Option<SocketAddr> {
        match self {
            Self::Direct(to) => Some(to),
            Self::Relayed { .. } => None,
        }
    }

    /// The peer's UDP address; none when it is reached otherwise.
    #[must_use]
    pub fn endpoint(self) -> Option<SocketAddr> {
        self.direct().filter(|to| !is_stream(*to))
    }

    /// Whether it goes through a TLS connection to a lighthouse, for want of UDP. Its
    /// [`next_hop`](Self::next_hop) is on no wire then.
    #[must_use]
    pub fn is_stream(self) -> bool {
        is_stream(self.next_hop())
    }

    /// Whether a lighthouse passes it on.
    #[must_use]
    pub fn is_relayed(self) -> bool {
        matches!(self, Self::Relayed { .. })
    }

    /// What stands before each datagram.
    pub(crate) fn header(self) -> Option<[u8; RELAY_HEADER]> {
        let Self::Relayed { channel, .. } = self else {
            return None;
        };
        let mut header = [0; RELAY_HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..].copy_from_slice(&channel.0.to_le_bytes());
        Some(header)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(_) if self.is_stream() => f.write_str("TLS"),
            Self::Relayed { .. } if self.is_stream() => f.write_str("relayed over TLS"),
            Self::Direct(to) => write!(f, "{to}"),
            Self::Relayed { via, .. } => write!(f, "relayed by {via}"),
        }
    }
}

/// Channel and contents of a relayed datagram; none when it is not one.
pub(crate) fn relayed(datagram: &[u8]) -> Option<(Channel, &[u8])> {
    let rest = datagram.strip_prefix(&MAGIC)?;
    let (channel, inner) = rest.split_first_chunk::<8>()?;
    Some((Channel(u64::from_le_bytes(*channel)), inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::classify;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_comes_back_and_is_no_wireguard_message(
            channel: u64, inner in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let way = Way::Relayed { via: ([192, 0, 2, 1], 1).into(), channel: Channel(channel) };
            let mut datagram = way.header().unwrap().to_vec();
            datagram.extend(&inner);
            prop_assert_eq!(relayed(&datagram), Some((Channel(channel), &inner[..])));
            prop_assert_eq!(classify(&datagram), None);
            relayed(&inner);
        }
    }
}
