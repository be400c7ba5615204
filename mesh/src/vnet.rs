//! `struct virtio_net_hdr` (linux/virtio_net.h): what stands before every packet of a TUN device
//! with `IFF_VNET_HDR`. 10 bytes in native byte order.

/// Its length.
pub(crate) const VNET_HEADER: usize = 10;
/// Flag: the checksum field holds the pseudo header's sum only.
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;
/// Set beside a TCP kind when the segments carry ECN.
const GSO_ECN: u8 = 0x80;

/// How a large packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gso {
    /// One of the `GSO_` kinds.
    pub kind: u8,
    /// Length of all headers; a hint only when the kernel writes it.
    pub header: u16,
    /// Payload bytes of each segment.
    pub size: u16,
}

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vnet {
    /// Where the checksum's range begins and where in it the field stands, if it is unfinished.
    pub checksum: Option<(usize, usize)>,
    /// `None`: one packet.
    pub gso: Option<Gso>,
}

/// Reads a header; `None` for less than one.
pub(crate) fn read(bytes: &[u8]) -> Option<Vnet> {
    let bytes: &[u8; VNET_HEADER] = bytes.get(..VNET_HEADER)?.try_into().ok()?;
    let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let kind = bytes[1] & !GSO_ECN;
    Some(Vnet {
        checksum: (bytes[0] & NEEDS_CSUM != 0).then(|| (word(6).into(), word(8).into())),
        gso: (kind != GSO_NONE).then(|| Gso {
            kind,
            header: word(2),
            size: word(4),
        }),
    })
}

/// The header of a large packet whose checksum field, `field` bytes after `start`, is unfinished.
pub(crate) fn write(gso: Gso, start: u16, field: u16) -> [u8; VNET_HEADER] {
    let mut bytes = [0; VNET_HEADER];
    bytes[0] = NEEDS_CSUM;
    bytes[1] = gso.kind;
    for (at, word) in [(2, gso.header), (4, gso.size), (6, start), (8, field)] {
        bytes[at..at + 2].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}
