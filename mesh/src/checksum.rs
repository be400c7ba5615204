//! The Internet checksum (RFC 1071).

/// Ones' complement sum, not folded yet. The sum does not depend on the byte order of the words,
/// so no byte is turned around: [`fold`] does that once.
pub(crate) fn add(start: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut sum = start;
    for word in &mut words {
        sum = sum.wrapping_add(u64::from(u32::from_ne_bytes([
            word[0], word[1], word[2], word[3],
        ])));
    }
    let mut last = [0u8; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    sum.wrapping_add(u64::from(u32::from_ne_bytes(last)))
}

/// The 16 bits that [`add`] came to, in this machine's byte order.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

/// The sum over the pseudo header of an IP packet (RFC 9293, RFC 8200) whose upper layer is
/// `protocol` with `length` bytes. The packet holds its IP header whole.
pub(crate) fn pseudo_header(packet: &[u8], v6: bool, protocol: u8, length: usize) -> u64 {
    let addresses = if v6 { &packet[8..40] } else { &packet[12..20] };
    let rest = u64::from((length as u16).to_be()) + u64::from(u16::from(protocol).to_be());
    add(rest, addresses)
}
