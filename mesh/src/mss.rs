//! The largest segment that TCP ends tell each other when a connection opens (MSS, RFC 9293, 3.7.1):
//! lowered to what fits the mesh, for ends that do not know its MTU.

const TCP: u8 = 6;
const SYN: u8 = 0x02;
/// Offset of the checksum in a TCP header.
const CHECKSUM: usize = 16;
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;

/// `packet` with a lower MSS, when it opens a connection with one too large for packets of `mtu`
/// bytes.
pub(crate) fn clamped(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let (tcp, headers) = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&TCP) => {
            let (length, offset) = (
                usize::from(packet[0] & 15) * 4,
                [packet[6] & 0x1f, packet[7]],
            );
            if length < 20 || offset != [0, 0] {
                return None;
            }
            (length, 40)
        }
        // A SYN has no extension headers where anybody would look for it.
        6 if packet.get(6) == Some(&TCP) => (40, 60),
        _ => return None,
    };
    if packet.get(tcp + 13)? & SYN == 0 {
        return None;
    }
    let limit = u16::try_from(mtu.checked_sub(headers)?).ok()?;
    let at = mss_at(packet, tcp)?;
    let told = u16::from_be_bytes([packet[at], packet[at + 1]]);
    if told <= limit {
        return None;
    }
    let mut packet = packet.to_vec();
    packet[at..at + 2].copy_from_slice(&limit.to_be_bytes());
    // RFC 1624; an odd place swaps the bytes that are summed.
    let swap = |word: u16| {
        if (at - tcp).is_multiple_of(2) {
            word
        } else {
            word.swap_bytes()
        }
    };
    let sum = packet.get_mut(tcp + CHECKSUM..tcp + CHECKSUM + 2)?;
    let old = u16::from_be_bytes([sum[0], sum[1]]);
    let mut total = u32::from(!old) + u32::from(!swap(told)) + u32::from(swap(limit));
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    sum.copy_from_slice(&(!(total as u16)).to_be_bytes());
    Some(packet)
}

/// Where the option's value is.
fn mss_at(packet: &[u8], tcp: usize) -> Option<usize> {
    let end = tcp + usize::from(packet.get(tcp + 12)? >> 4) * 4;
    let (mut at, end) = (tcp + 20, end.min(packet.len()));
    while at < end {
        match packet[at] {
            END => return None,
            NOTHING => at += 1,
            kind => {
                let len = usize::from(*packet.get(at + 1)?);
                if kind == MSS && len == 4 && at + 4 <= end {
                    return Some(at + 2);
                }
                at += len.max(2);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::{add, fold, pseudo_header};
    use proptest::prelude::*;

    /// A SYN with `options`, its checksum right.
    fn syn(v6: bool, options: &[u8]) -> Vec<u8> {
        let words = options.len().div_ceil(4);
        let mut tcp = vec![0; 20];
        tcp[12] = ((5 + words) as u8) << 4;
        tcp[13] = SYN;
        tcp.extend(options);
        tcp.resize(20 + words * 4, 0);
        let mut packet = if v6 {
            let mut ip = vec![0; 40];
            (ip[0], ip[6], ip[8], ip[24]) = (0x60, TCP, 0xfd, 0xfd);
            ip
        } else {
            let mut ip = vec![0; 20];
            (ip[0], ip[9], ip[12], ip[16]) = (0x45, TCP, 10, 11);
            ip
        };
        let at = packet.len();
        packet.extend(tcp);
        let sum = sum(&packet, at);
        packet[at + CHECKSUM..at + CHECKSUM + 2].copy_from_slice(&(!sum).to_be_bytes());
        packet
    }

    fn sum(packet: &[u8], tcp: usize) -> u16 {
        let pseudo = pseudo_header(packet, tcp == 40, TCP, packet.len() - tcp);
        fold(add(pseudo, &packet[tcp..]))
    }

    fn told(packet: &[u8], tcp: usize) -> u16 {
        let at = mss_at(packet, tcp).unwrap();
        u16::from_be_bytes([packet[at], packet[at + 1]])
    }

    #[test]
    fn too_large_a_segment_is_lowered_and_the_checksum_stays_right() {
        let [high, low] = 1460u16.to_be_bytes();
        for options in [vec![2, 4, high, low], vec![1, 2, 4, high, low, 4, 2]] {
            for (v6, tcp, want) in [(false, 20, 1340), (true, 40, 1320)] {
                let packet = syn(v6, &options);
                assert_eq!(sum(&packet, tcp), 0xffff);
                let lower = clamped(&packet, 1380).unwrap();
                assert_eq!(told(&lower, tcp), want);
                assert_eq!(sum(&lower, tcp), 0xffff);
                assert_eq!(clamped(&lower, 1380), None);
            }
        }
    }

    #[test]
    fn all_else_is_left_alone() {
        let mut packet = syn(false, &[2, 4, 5, 180]);
        packet[33] = 0x10;
        assert_eq!(clamped(&packet, 1380), None);
        assert_eq!(clamped(&syn(true, &[4, 2, 0, 0]), 1380), None);
        // A later fragment has payload where a header would be; a header length that cannot be.
        for (at, value) in [(7, 1), (6, 0x01), (0, 0x40), (0, 0x44)] {
            let mut packet = syn(false, &[2, 4, 5, 180]);
            packet[at] = value;
            assert_eq!(clamped(&packet, 1380), None, "{at}: {value:#x}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..100), v6: bool) {
            clamped(&bytes, 1380);
            let packet = syn(v6, &bytes[..bytes.len().min(36)]);
            clamped(&packet, 1380);
        }
    }
}
