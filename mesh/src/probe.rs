//! Probes: what members say to each other about paths, beside WireGuard and on the same socket.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `hfp` and the version, 1 |
//! | 4..12 | tag: tells the receiver who sent it, and nobody else |
//! | 12..36 | nonce, random |
//! | 36.. | the message, sealed with XChaCha20-Poly1305 |
//!
//! Key and tags come from X25519 of both static keys: only these two members make or read probes
//! of each other. A probe that is repeated by someone else moves nothing: a path counts only once
//! an answer to a question of our own came back on it.

use crate::keys::MeshKey;
use crate::packet::answerable;
use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use x25519_dalek::{PublicKey, StaticSecret};

/// First bytes of a probe.
const MAGIC: [u8; 4] = *b"hfp\x01";
const TAG: usize = 8;
const NONCE: usize = 24;
const SEALED_AT: usize = 4 + TAG + NONCE;
/// Poly1305's tag.
const SEAL: usize = 16;
/// Longer than any other probe: a question that measures.
const PADDED: usize = 600;
/// Places in one invitation.
pub(crate) const MAX_CANDIDATES: usize = 16;
/// An address with its port.
const ADDRESS: usize = 18;
/// Kind and number; padded so that an answer is as long as its question.
const SHORT: usize = 1 + 8 + ADDRESS;

/// Who sent a probe, as the receiver finds it.
pub(crate) type Tag = [u8; TAG];

/// What a probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Are you there? Answered on the same way.
    Ping(u64),
    /// The answer, with the address that the question came from.
    Pong(u64, SocketAddr),
    /// Here I may be reached: seek me there now, as I seek you.
    Invite {
        /// Where.
        candidates: Vec<SocketAddr>,
        /// The sender does not know the receiver's places yet.
        answer: bool,
    },
}

/// What two members share.
pub(crate) struct ProbeKey {
    cipher: XChaCha20Poly1305,
    /// Of probes that this member sends.
    ours: Tag,
    /// Of probes that it receives.
    pub theirs: Tag,
}

impl ProbeKey {
    pub(crate) fn new(secret: &StaticSecret, own: MeshKey, peer: MeshKey) -> Self {
        let shared = secret.diffie_hellman(&PublicKey::from(peer.0));
        let derive = |label: &[u8], key: &[u8]| -> [u8; 32] {
            let hash = Sha256::new().chain_update(b"holdfast probe 1 ");
            let hash = hash.chain_update(label).chain_update(shared.as_bytes());
            hash.chain_update(key).finalize().into()
        };
        let tag = |of: MeshKey| {
            let [a, b, c, d, e, f, g, h, ..] = derive(b"tag", &of.0);
            [a, b, c, d, e, f, g, h]
        };
        Self {
            cipher: XChaCha20Poly1305::new(&derive(b"key", b"").into()),
            ours: tag(own),
            theirs: tag(peer),
        }
    }

    /// A probe; none when the system gives no random bytes.
    pub(crate) fn seal(&self, message: &Message) -> Option<Vec<u8>> {
        self.seal_bytes(encode(message))
    }

    /// A question as a datagram of `size` bytes, which must not be cut on its way.
    pub(crate) fn seal_padded(&self, number: u64, size: usize) -> Option<Vec<u8>> {
        let mut bytes = encode(&Message::Ping(number));
        bytes.resize(size.saturating_sub(SEALED_AT + SEAL).max(SHORT), 0);
        self.seal_bytes(bytes)
    }

    fn seal_bytes(&self, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let nonce = XNonce::from(nonce);
        self.cipher
            .encrypt_in_place(&nonce, &self.ours, &mut sealed)
            .ok()?;
        let head = [&MAGIC[..], &self.ours, &nonce, &sealed];
        Some(head.concat())
    }

    /// What a probe of the peer says; none when it is not the peer's, or says nothing known.
    pub(crate) fn open(&self, datagram: &[u8]) -> Option<Message> {
        if tag(datagram)? != self.theirs {
            return None;
        }
        let nonce: [u8; NONCE] = datagram.get(4 + TAG..SEALED_AT)?.try_into().ok()?;
        let mut sealed = datagram.get(SEALED_AT..)?.to_vec();
        self.cipher
            .decrypt_in_place(&XNonce::from(nonce), &self.theirs, &mut sealed)
            .ok()?;
        decode(&sealed)
    }
}

/// Whether a datagram measures the path: it must not be cut.
pub(crate) fn measures(datagram: &[u8]) -> bool {
    datagram.len() >= PADDED && datagram.starts_with(&MAGIC)
}

/// The tag of a probe; none when the datagram is none.
pub(crate) fn tag(datagram: &[u8]) -> Option<Tag> {
    let rest = datagram.strip_prefix(&MAGIC)?;
    rest.first_chunk().copied()
}

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(SHORT);
    match message {
        Message::Ping(number) => {
            out.push(1);
            out.extend(number.to_le_bytes());
        }
        Message::Pong(number, seen) => {
            out.push(2);
            out.extend(number.to_le_bytes());
            put(&mut out, *seen);
        }
        Message::Invite { candidates, answer } => {
            out.extend([3, u8::from(*answer)]);
            let some = candidates.iter().take(MAX_CANDIDATES);
            some.for_each(|c| put(&mut out, *c));
            return out;
        }
    }
    out.resize(SHORT, 0);
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Message> {
    let (kind, rest) = bytes.split_first()?;
    let number = || rest.first_chunk().map(|n| u64::from_le_bytes(*n));
    match kind {
        // Longer where it measures what a path carries.
        1 if bytes.len() >= SHORT => Some(Message::Ping(number()?)),
        2 if bytes.len() == SHORT => Some(Message::Pong(number()?, address(rest.get(8..)?)?)),
        3 => {
            let (answer, places) = rest.split_first()?;
            if places.len() % ADDRESS != 0 || places.len() > MAX_CANDIDATES * ADDRESS {
                return None;
            }
            let places = places.chunks_exact(ADDRESS).filter_map(address);
            Some(Message::Invite {
                candidates: places.filter(|a| answerable(*a)).collect(),
                answer: *answer == 1,
            })
        }
        _ => None,
    }
}

fn put(out: &mut Vec<u8>, address: SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    out.extend(ip.octets());
    out.extend(address.port().to_be_bytes());
}

fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(*port.first_chunk()?);
    let ip = IpAddr::from(Ipv6Addr::from(*ip)).to_canonical();
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::classify;
    use proptest::prelude::*;

    fn pair() -> (ProbeKey, ProbeKey) {
        let [a, b] = [[1; 32], [2; 32]].map(StaticSecret::from);
        let key = |s: &StaticSecret| MeshKey(PublicKey::from(s).to_bytes());
        (
            ProbeKey::new(&a, key(&a), key(&b)),
            ProbeKey::new(&b, key(&b), key(&a)),
        )
    }

    fn place() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), 1u16..)
            .prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
            .prop_filter("answerable", |a| answerable(*a))
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<u64>().prop_map(Message::Ping),
            (any::<u64>(), place()).prop_map(|(n, a)| Message::Pong(n, a)),
            (
                proptest::collection::vec(place(), 0..=MAX_CANDIDATES),
                any::<bool>()
            )
                .prop_map(|(candidates, answer)| Message::Invite { candidates, answer }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_probe_comes_back_and_a_bent_one_does_not(
            message in message(), at: prop::sample::Index, bit in 0u8..8,
        ) {
            let (a, b) = pair();
            let mut probe = a.seal(&message).unwrap();
            prop_assert_eq!(classify(&probe), None);
            prop_assert_eq!(b.open(&probe), Some(message));
            // Not its own: a probe sent back to its sender says nothing.
            prop_assert_eq!(a.open(&probe), None);
            let at = at.index(probe.len());
            probe[at] ^= 1 << bit;
            prop_assert_eq!(b.open(&probe), None);
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            decode(&bytes);
            pair().0.open(&bytes);
            let framed = [&MAGIC[..], &bytes].concat();
            pair().0.open(&framed);
        }
    }

    #[test]
    fn a_padded_question_is_as_long_as_asked_and_no_other_probe_is_taken_for_one() {
        let (a, b) = pair();
        for size in [1232, 1424] {
            let probe = a.seal_padded(9, size).unwrap();
            assert_eq!(probe.len(), size);
            assert!(measures(&probe));
            assert_eq!(b.open(&probe), Some(Message::Ping(9)));
        }
        let candidates = vec!["[2001:db8::1]:7".parse().unwrap(); MAX_CANDIDATES];
        let longest = Message::Invite {
            candidates,
            answer: true,
        };
        assert!(!measures(&a.seal(&longest).unwrap()));
    }

    #[test]
    fn an_answer_is_no_longer_than_its_question() {
        let (a, _) = pair();
        let len = |m| a.seal(&m).unwrap().len();
        let pong = Message::Pong(7, "[2001:db8::1]:7".parse().unwrap());
        assert_eq!(len(Message::Ping(7)), len(pong));
    }
}
