//! Merged frames, cut again as the kernel would, are the packets that went in.

use super::*;
use crate::vnet::GSO_TCPV6;
use proptest::prelude::*;

/// A TCP packet with right checksums.
fn tcp(v6: bool, port: u16, seq: u32, flags: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let tcp_len = 20 + options * 4;
    let total = tcp_len + payload.len();
    let mut packet = if v6 {
        let mut p = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        p[4..6].copy_from_slice(&(total as u16).to_be_bytes());
        p.extend_from_slice(&[0xfd; 32]);
        p
    } else {
        let mut p = vec![
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        p[2..4].copy_from_slice(&(total as u16 + 20).to_be_bytes());
        let sum = !fold(add(0, &p));
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        p
    };
    let ip_len = packet.len();
    packet.extend_from_slice(&port.to_be_bytes());
    packet.extend_from_slice(&[0, 80]);
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&[
        0,
        0,
        0,
        9,
        (tcp_len as u8 / 4) << 4,
        flags,
        1,
        1,
        0,
        0,
        0,
        0,
    ]);
    packet.resize(ip_len + tcp_len, 1);
    packet.extend_from_slice(payload);
    let sum = !fold(add(
        pseudo_header(&packet, v6, TCP, total),
        &packet[ip_len..],
    ));
    packet[ip_len + 16..ip_len + 18].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// What the kernel makes of a frame: segments with full checksums.
fn cut(frame: &[u8]) -> Vec<Vec<u8>> {
    let (vnet, packet) = frame.split_at(VNET_HEADER);
    if vnet[1] == 0 {
        assert_eq!(vnet, [0; VNET_HEADER]);
        return vec![packet.to_vec()];
    }
    let field = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    let (header_len, size, ip_len) = (field(2), field(4), field(6));
    let v6 = vnet[1] == GSO_TCPV6;
    assert_eq!((vnet[0], field(8)), (1, 16));
    let partial = u16::from_be_bytes([packet[ip_len + 16], packet[ip_len + 17]]);
    assert_eq!(
        partial,
        fold(pseudo_header(packet, v6, TCP, packet.len() - ip_len))
    );
    let options = (header_len - ip_len - 20) / 4;
    let at = ip_len;
    let port = u16::from_be_bytes([packet[at], packet[at + 1]]);
    let mut seq = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
    let parts: Vec<&[u8]> = packet[header_len..].chunks(size).collect();
    let mut out = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        let flags = if last {
            packet[at + 13]
        } else {
            packet[at + 13] & !PSH
        };
        out.push(tcp(v6, port, seq, flags, options, part));
        seq = seq.wrapping_add(part.len() as u32);
    }
    out
}

/// Decrypts `packet` into the merger, so to say: a tag's length more is written than it has.
fn take(merger: &mut Merger, packet: &[u8]) {
    // One that came to nothing.
    merger.room(80).fill(0xdd);
    let room = merger.room(packet.len() + 32);
    room.fill(0xee);
    room[..packet.len()].copy_from_slice(packet);
    assert_eq!(merger.held(packet.len()), packet);
    merger.take(packet.len());
}

fn merge(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut merger = Merger::default();
    packets.iter().for_each(|p| take(&mut merger, p));
    let frames = merger.finish().map(|frame| frame.to_vec()).collect();
    merger.clear();
    frames
}

fn stream(v6: bool, count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| tcp(v6, 7, (n * 1000) as u32, ACK, 3, &[n as u8; 1000]))
        .collect()
}

#[test]
fn a_stream_becomes_one_frame() {
    for v6 in [false, true] {
        let packets = stream(v6, 40);
        let frames = merge(&packets);
        assert_eq!(frames.len(), 1);
        assert_eq!(cut(&frames[0]), packets);
    }
}

#[test]
fn a_push_and_a_short_segment_end_a_run() {
    let mut packets = stream(false, 3);
    packets[1] = tcp(false, 7, 1000, ACK | PSH, 3, &[1; 1000]);
    assert_eq!(merge(&packets).len(), 2);
    let mut packets = stream(false, 2);
    packets[1] = tcp(false, 7, 1000, ACK, 3, &[1; 999]);
    packets.push(tcp(false, 7, 1999, ACK, 3, &[2; 1000]));
    assert_eq!(merge(&packets).len(), 2);
}

#[test]
fn nothing_is_merged_that_differs() {
    let first = tcp(false, 7, 0, ACK, 3, &[1; 1000]);
    let good = tcp(false, 7, 1000, ACK, 3, &[1; 1000]);
    assert_eq!(merge(&[first.clone(), good.clone()]).len(), 1);
    let mut damaged = good.clone();
    damaged[200] ^= 1;
    let mut header = good;
    header[4] ^= 1; // IPv4 identification, the header checksum does not fit any more
    for other in [
        damaged,
        header,
        tcp(false, 7, 1001, ACK, 3, &[1; 1000]),
        tcp(false, 7, 1000, ACK, 2, &[1; 1000]),
        tcp(false, 7, 1000, ACK, 3, &[1; 1001]),
        tcp(false, 7, 1000, ACK | 0x02, 3, &[1; 1000]),
        tcp(false, 8, 1000, ACK, 3, &[1; 1000]),
        tcp(true, 7, 1000, ACK, 3, &[1; 1000]),
    ] {
        assert_eq!(merge(&[first.clone(), other]).len(), 2);
    }
}

#[test]
fn no_frame_is_longer_than_an_ip_packet() {
    let packets = stream(false, 200);
    let frames = merge(&packets);
    assert!(frames.iter().all(|f| f.len() - VNET_HEADER <= MAX_IP));
    assert_eq!(
        frames.iter().flat_map(|f| cut(f)).collect::<Vec<_>>(),
        packets
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn order_and_content_of_each_connection_survive(
        steps in proptest::collection::vec(
            (0u16..3, any::<bool>(), prop_oneof![4 => Just(ACK), 1 => Just(ACK | PSH), 1 => Just(ACK | 1)],
             prop_oneof![3 => Just(100usize), 1 => 0usize..100], any::<bool>()), 0..60)
    ) {
        let mut seqs = std::collections::HashMap::new();
        let packets: Vec<Vec<u8>> = steps.iter().map(|(port, v6, flags, len, gap)| {
            let seq: &mut u32 = seqs.entry((*port, *v6)).or_insert(u32::MAX - 250);
            if *gap { *seq = seq.wrapping_add(1); }
            let packet = tcp(*v6, *port, *seq, *flags, 0, &vec![*len as u8; *len]);
            *seq = seq.wrapping_add(*len as u32);
            packet
        }).collect();
        let out: Vec<Vec<u8>> = merge(&packets).iter().flat_map(|f| cut(f)).collect();
        for (port, v6) in seqs.keys() {
            let of = |list: &[Vec<u8>]| -> Vec<Vec<u8>> {
                list.iter().filter(|p| {
                    let at = if *v6 { 40 } else { 20 };
                    (p[0] >> 4 == 6) == *v6 && p[at..at + 2] == port.to_be_bytes()
                }).cloned().collect()
            };
            prop_assert_eq!(of(&out), of(&packets));
        }
        prop_assert_eq!(out.len(), packets.len());
    }

    #[test]
    fn any_bytes_pass_through(packets in proptest::collection::vec(
        (any::<[bool; 2]>(), proptest::collection::vec(any::<u8>(), 0..120)), 0..20)
    ) {
        let packets: Vec<Vec<u8>> = packets.into_iter().map(|(shape, mut bytes)| {
            if let [a, .., _] = &mut bytes[..] { *a = if shape[0] { 0x45 } else { 0x60 }; }
            if shape[1] && bytes.len() > 10 { bytes[6] = 6; bytes[9] = 6; }
            bytes
        }).collect();
        let frames = merge(&packets);
        prop_assert_eq!(frames.len(), packets.len());
        for (frame, packet) in frames.iter().zip(&packets) {
            prop_assert_eq!(&frame[VNET_HEADER..], &packet[..]);
        }
    }
}
