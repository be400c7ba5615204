//! SNTP (RFC 4330, section 5) with servers that the seed or DHCP names.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{UdpSocket, lookup_host};

/// Seconds from 1900 (NTP era 0) to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;
const PORT: u16 = 123;
const PATIENCE: Duration = Duration::from_secs(3);

/// A request that carries `nonce` as its transmit stamp: the server must send it back.
fn request(nonce: [u8; 8]) -> [u8; 48] {
    let mut packet = [0; 48];
    packet[0] = 0b00_100_011; // no warning, version 4, client
    packet[40..48].copy_from_slice(&nonce);
    packet
}

/// The server's time, if the answer is one to our request and the server's clock is set.
fn answer(packet: &[u8], nonce: [u8; 8]) -> Option<u64> {
    if packet.len() < 48 || packet[0] & 0b111 != 4 || packet[0] >> 6 == 3 {
        return None;
    }
    if packet[1] == 0 || packet[1] > 15 || packet[24..32] != nonce {
        return None;
    }
    let seconds = u64::from(u32::from_be_bytes([
        packet[40], packet[41], packet[42], packet[43],
    ]));
    // Era 1 begins in 2036 (RFC 4330, section 3).
    let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
    // What lies before 1970 is a liar's.
    (seconds + era).checked_sub(NTP_TO_UNIX)
}

async fn one(server: SocketAddr) -> Option<u64> {
    let local = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(local).await.ok()?;
    socket.connect(server).await.ok()?;
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).ok()?;
    socket.send(&request(nonce)).await.ok()?;
    let mut buffer = [0; 512];
    let len = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer))
        .await
        .ok()?
        .ok()?;
    answer(&buffer[..len], nonce)
}

/// Asks each server (`host` or `host:port`); the earliest answer counts, so that no single liar
/// can push the clock ahead of the others.
pub async fn ask(servers: &[String]) -> Option<u64> {
    let mut earliest: Option<u64> = None;
    for name in servers {
        let with_port = if holdfast_core::seed::is_host_port(name) {
            name.clone()
        } else {
            format!("{name}:{PORT}")
        };
        let Ok(mut found) = lookup_host(with_port).await else {
            continue;
        };
        if let Some(address) = found.next()
            && let Some(time) = one(address).await
        {
            earliest = Some(earliest.map_or(time, |e| e.min(time)));
        }
    }
    earliest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(nonce: [u8; 8], seconds: u32) -> [u8; 48] {
        let mut p = [0; 48];
        p[0] = 0b00_100_100;
        p[1] = 2;
        p[24..32].copy_from_slice(&nonce);
        p[40..44].copy_from_slice(&seconds.to_be_bytes());
        p
    }

    #[test]
    fn reads_both_eras() {
        // RFC 5905 appendix: 1 January 1999 is 3124137600; 2036-02-07 06:28:16 begins era 1.
        assert_eq!(
            answer(&reply([1; 8], 3_124_137_600), [1; 8]),
            Some(915_148_800)
        );
        assert_eq!(answer(&reply([1; 8], 0), [1; 8]), Some(2_085_978_496));
        for seconds in [1 << 31, (1 << 31) - 1, 2_208_988_799, u32::MAX] {
            let _ = answer(&reply([1; 8], seconds), [1; 8]);
        }
        assert_eq!(answer(&reply([1; 8], 1 << 31), [1; 8]), None);
    }

    #[test]
    fn strangers_and_unset_clocks_are_not_believed() {
        assert_eq!(answer(&reply([1; 8], 3_900_000_000), [2; 8]), None);
        let mut unset = reply([1; 8], 3_900_000_000);
        unset[0] |= 0b1100_0000;
        assert_eq!(answer(&unset, [1; 8]), None);
        let mut goodbye = reply([1; 8], 3_900_000_000);
        goodbye[1] = 0;
        assert_eq!(answer(&goodbye, [1; 8]), None);
        assert_eq!(answer(&[0; 20], [1; 8]), None);
    }
}
