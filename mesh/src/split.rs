//! Cuts what a TUN device with offload hands over (up to 64 KiB of one connection, the checksum
//! unfinished) to packets, in place.
//!
//! Each segment's headers are written right before its payload, over the end of the segment
//! before: packets are therefore given out one at a time, and nothing is copied but headers.

use crate::checksum::{add, fold, pseudo_header};
use crate::vnet::{self, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VNET_HEADER};

/// IP and transport headers that are cut: 60 + 60 for IPv4, some extensions for IPv6.
const MAX_HEADERS: usize = 160;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// The packets of one frame, to be taken with [`next`](Self::next).
pub(crate) struct Segments<'a> {
    packet: &'a mut [u8],
    cut: Option<Cut>,
    /// Where the next payload begins.
    at: usize,
}

/// How to cut.
struct Cut {
    headers: [u8; MAX_HEADERS],
    headers_len: usize,
    v6: bool,
    protocol: u8,
    /// Length of the IP header with its extensions.
    ip_len: usize,
    size: usize,
    /// Segments given out.
    count: u16,
}

/// The packets in `frame`, a vnet header and a packet; `None` when it makes no sense, or is of a
/// kind that was never asked of the kernel.
pub(crate) fn segments(frame: &mut [u8]) -> Option<Segments<'_>> {
    let vnet = vnet::read(frame)?;
    let packet = frame.get_mut(VNET_HEADER..)?;
    match (vnet.gso, vnet.checksum) {
        (Some(gso), Some((start, _))) => {
            let cut = Cut::new(packet, gso, start)?;
            let at = cut.headers_len;
            Some(Segments {
                packet,
                cut: Some(cut),
                at,
            })
        }
        (Some(_), None) => None,
        (None, unfinished) => {
            if let Some((start, field)) = unfinished {
                finish(packet, start, field)?;
            }
            Some(Segments {
                packet,
                cut: None,
                at: 0,
            })
        }
    }
}

/// Finishes the checksum of a packet that is not cut.
fn finish(packet: &mut [u8], start: usize, field: usize) -> Option<()> {
    let sum = !fold(add(0, packet.get(start..)?));
    // A UDP checksum of 0 would say that there is none (RFC 768).
    let sum = if field == 6 && sum == 0 { 0xffff } else { sum };
    packet
        .get_mut(start + field..start + field + 2)?
        .copy_from_slice(&sum.to_be_bytes());
    Some(())
}

impl Cut {
    fn new(packet: &[u8], gso: vnet::Gso, ip_len: usize) -> Option<Self> {
        let v6 = packet.first()? >> 4 == 6;
        let protocol = match (gso.kind, v6) {
            (GSO_TCPV4, false) | (GSO_TCPV6, true) => TCP,
            (GSO_UDP_L4, _) => UDP,
            _ => return None,
        };
        let shortest = if v6 {
            40
        } else {
            usize::from(packet[0] & 0x0f) * 4
        };
        if ip_len < shortest.max(20) || (!v6 && ip_len != shortest) {
            return None;
        }
        let upper = if protocol == TCP {
            usize::from(*packet.get(ip_len + 12)? >> 4) * 4
        } else {
            8
        };
        let headers_len = ip_len + upper;
        let too_short = protocol == TCP && upper < 20;
        if too_short || headers_len > MAX_HEADERS || headers_len >= packet.len() || gso.size == 0 {
            return None;
        }
        let mut headers = [0; MAX_HEADERS];
        headers[..headers_len].copy_from_slice(&packet[..headers_len]);
        Some(Self {
            headers,
            headers_len,
            v6,
            protocol,
            ip_len,
            size: gso.size.into(),
            count: 0,
        })
    }

    /// Writes the headers of `packet`, whose payload is `at` bytes into the whole; `last`: nothing
    /// follows.
    fn write(&mut self, packet: &mut [u8], at: usize, last: bool) {
        packet[..self.headers_len].copy_from_slice(&self.headers[..self.headers_len]);
        let (len, upper_len) = (packet.len(), packet.len() - self.ip_len);
        if self.v6 {
            packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(self.count);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[10..12].fill(0);
            let sum = !fold(add(0, &packet[..self.ip_len]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let pseudo = pseudo_header(packet, self.v6, self.protocol, upper_len);
        let upper = &mut packet[self.ip_len..];
        let field = if self.protocol == TCP {
            let offset = (at - self.headers_len) as u32;
            let seq = u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]);
            upper[4..8].copy_from_slice(&seq.wrapping_add(offset).to_be_bytes());
            if !last {
                upper[13] &= !(FIN | PSH);
            }
            if self.count > 0 {
                upper[13] &= !CWR;
            }
            16
        } else {
            upper[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes());
            6
        };
        upper[field..field + 2].fill(0);
        let sum = !fold(add(pseudo, upper));
        let sum = if self.protocol == UDP && sum == 0 {
            0xffff
        } else {
            sum
        };
        upper[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        self.count = self.count.wrapping_add(1);
    }
}

impl Segments<'_> {
    /// The next packet, whole and with right checksums; the one before is gone then.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let Some(cut) = &mut self.cut else {
            let whole = std::mem::take(&mut self.packet);
            return (!whole.is_empty()).then_some(&*whole);
        };
        let left = self.packet.len() - self.at;
        if left == 0 {
            return None;
        }
        let payload = left.min(cut.size);
        let segment = &mut self.packet[self.at - cut.headers_len..self.at + payload];
        cut.write(segment, self.at, payload == left);
        self.at += payload;
        Some(segment)
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
