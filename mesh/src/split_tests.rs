//! Every packet cut out is checked by its own length fields and checksums; together they carry
//! the payload that went in.

use super::*;
use crate::vnet::Gso;
use proptest::prelude::*;

const ID: u16 = 0xfffe;
const SEQ: u32 = 0xffff_ff00;
const ACK: u8 = 0x10;

/// A large packet as a TUN device hands it over: lengths of the whole, the pseudo header's sum
/// in the checksum field.
fn frame(v6: bool, protocol: u8, options: usize, size: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let upper_len = if protocol == TCP { 20 + options * 4 } else { 8 };
    let total = upper_len + payload.len();
    let mut packet = if v6 {
        let mut p = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        p[4..6].copy_from_slice(&(total as u16).to_be_bytes());
        p.extend((0u8..32).map(|n| n.wrapping_mul(37)));
        p
    } else {
        let mut p = vec![
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 9, 0, 2,
        ];
        p[2..4].copy_from_slice(&(total as u16 + 20).to_be_bytes());
        p[4..6].copy_from_slice(&ID.to_be_bytes());
        p
    };
    let ip_len = packet.len();
    packet.extend_from_slice(&[0x30, 0x39, 0, 80]);
    if protocol == TCP {
        packet.extend_from_slice(&SEQ.to_be_bytes());
        packet.extend_from_slice(&[
            0,
            0,
            0,
            9,
            (upper_len as u8 / 4) << 4,
            flags,
            1,
            1,
            0,
            0,
            0,
            0,
        ]);
        packet.resize(ip_len + upper_len, 1);
    } else {
        packet.extend_from_slice(&(total as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
    }
    let field = if protocol == TCP { 16 } else { 6 };
    let partial = fold(pseudo_header(&packet, v6, protocol, total));
    packet[ip_len + field..ip_len + field + 2].copy_from_slice(&partial.to_be_bytes());
    let header = packet.len() as u16;
    packet.extend_from_slice(payload);
    let kind = match (protocol, v6) {
        (UDP, _) => GSO_UDP_L4,
        (_, true) => GSO_TCPV6,
        _ => GSO_TCPV4,
    };
    let mut vnet = vnet::write(Gso { kind, header, size }, ip_len as u16, field as u16);
    if payload.len() <= size.into() {
        vnet[1..6].fill(0);
    }
    [&vnet[..], &packet].concat()
}

fn all(frame: &mut [u8]) -> Vec<Vec<u8>> {
    let mut segments = segments(frame).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = segments.next() {
        packets.push(packet.to_vec());
    }
    packets
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn packets_are_right_and_carry_everything(
        v6 in any::<bool>(), udp in any::<bool>(), options in 0usize..=10,
        size in prop_oneof![4 => 1u16..3000, 1 => Just(1u16)], flags in any::<u8>(),
        len in prop_oneof![1usize..40, 1usize..20_000, Just(62_000usize)], seed in any::<u8>(),
    ) {
        let protocol = if udp { UDP } else { TCP };
        let payload: Vec<u8> = (0..len).map(|n| (n / 251 + n) as u8 ^ seed).collect();
        let packets = all(&mut frame(v6, protocol, options, size, flags, &payload));
        prop_assert_eq!(packets.len(), len.div_ceil(size.into()));
        let mut carried = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let ip_len = if v6 { 40 } else { 20 };
            if v6 {
                prop_assert_eq!(usize::from(word(packet, 4)), packet.len() - 40);
            } else {
                prop_assert_eq!(usize::from(word(packet, 2)), packet.len());
                prop_assert_eq!(word(packet, 4), ID.wrapping_add(n as u16));
                if packets.len() > 1 {
                    prop_assert_eq!(fold(add(0, &packet[..20])), 0xffff);
                }
            }
            let upper = &packet[ip_len..];
            let pseudo = pseudo_header(packet, v6, protocol, upper.len());
            prop_assert_eq!(fold(add(pseudo, upper)), 0xffff);
            let header = if udp {
                prop_assert_eq!(usize::from(word(upper, 4)), upper.len());
                prop_assert!(word(upper, 6) != 0);
                8
            } else {
                let seq = u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]);
                prop_assert_eq!(seq, SEQ.wrapping_add(carried.len() as u32));
                let last = n + 1 == packets.len();
                let kept = if last { flags } else { flags & !(FIN | PSH) };
                prop_assert_eq!(upper[13], if n > 0 { kept & !CWR } else { kept });
                20 + options * 4
            };
            carried.extend_from_slice(&upper[header..]);
        }
        prop_assert!(carried == payload);
    }

    #[test]
    fn any_bytes_are_looked_at(
        flags in 0u8..3, kind in prop_oneof![0u8..7, any::<u8>()], fields in any::<[u8; 8]>(),
        small in any::<bool>(), mut packet in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Some(first) = packet.first_mut() { *first = if small { 0x45 } else { 0x60 }; }
        let mut bytes = vec![flags, kind];
        bytes.extend(fields.chunks(2).flat_map(|f| [f[0], if small { 0 } else { f[1] }]));
        bytes.extend(packet);
        if let Some(mut segments) = segments(&mut bytes) {
            while segments.next().is_some() {}
        }
    }
}

#[test]
fn a_finished_packet_is_left_alone() {
    let packet = [0x45u8, 1, 2, 3];
    let mut frame = [&[0; VNET_HEADER][..], &packet].concat();
    assert_eq!(all(&mut frame), [packet.to_vec()]);
    assert_eq!(all(&mut [0; VNET_HEADER]), Vec::<Vec<u8>>::new());
    assert!(segments(&mut [0; VNET_HEADER - 1]).is_none());
}

#[test]
fn what_was_never_asked_for_is_refused() {
    let large = frame(false, TCP, 0, 1000, ACK, &[0; 5000]);
    for (at, byte) in [(1, 3), (1, GSO_TCPV6), (0, 0), (VNET_HEADER, 0x4f)] {
        let mut wrong = large.clone();
        wrong[at] = byte;
        assert!(segments(&mut wrong).is_none(), "byte {at} is {byte}");
    }
}
