//! The largest segment that the kernel hands to a TUN device.

use std::io;

/// `IFLA_GSO_MAX_SIZE`: a full read of the device then is 46 datagrams of 1412 bytes at an MTU of
/// 1380 (64,952 bytes), which one send takes; a few more would make a second send of each read.
const LARGEST: u32 = 62_000;
/// linux/if_link.h.
const IFLA_GSO_MAX_SIZE: u16 = 41;
/// Netlink header (16), interface message (16), one attribute (8).
const LENGTH: usize = 40;

/// Limits the interface with this index. Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// When the kernel refuses it.
pub(crate) fn limit(interface: u32) -> io::Result<()> {
    let netlink = socket2::Socket::new(
        socket2::Domain::from(libc::AF_NETLINK),
        socket2::Type::RAW,
        Some(socket2::Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    netlink.send(&message(interface))?;
    // The kernel answers within the send: nothing is waited for.
    let mut answer = [0u8; 64];
    let answered = io::Read::read(&mut &netlink, &mut answer)?;
    // struct nlmsgerr after the header: the error, negative.
    match answer.get(16..20).filter(|_| answered >= 20) {
        Some(code) => match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        },
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `RTM_NEWLINK` for an interface that is there (rtnetlink(7)).
fn message(interface: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    bytes[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[20..24].copy_from_slice(&interface.to_ne_bytes());
    bytes[32..34].copy_from_slice(&8u16.to_ne_bytes());
    bytes[34..36].copy_from_slice(&IFLA_GSO_MAX_SIZE.to_ne_bytes());
    bytes[36..40].copy_from_slice(&LARGEST.to_ne_bytes());
    bytes
}
