use crate::error::{Result, io};
use crate::switch::Switch;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Ethernet, IPv4 without options, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// BOOTP's fields up to the options (RFC 951), and the cookie before those (RFC 2131, 3).
const FIELDS: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Seconds; no test lasts as long.
const LEASE: u32 = 86_400;
/// An Ethernet type for experiments (IEEE 802): lets the switch know the port.
const HELLO: [u8; 14] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5,
];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A DHCP server on a [`Switch`]: machines get addresses of one /24, the same ones after each start,
/// and neither a router nor a name server. A thread of the test's own process.
#[derive(Debug)]
pub struct Lan {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lan {
    /// Serves `net`/24: itself `.1`, the machines from `.10` on, in the order in which they asked.
    ///
    /// # Errors
    /// Where its socket cannot be made.
    pub fn new(switch: &Switch, net: [u8; 3]) -> Result<Self> {
        let path = switch.dir().join("lan");
        let socket = UnixDatagram::bind(&path).map_err(io("bind", &path))?;
        // The thread looks at `stop` this often.
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .map_err(io("configure", &path))?;
        socket
            .send_to(&HELLO, switch.socket())
            .map_err(io("send to", switch.socket()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, hub) = (stop.clone(), switch.socket().to_owned());
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; 2048];
            let mut server = Server { net, known: vec![] };
            while !ended.load(Ordering::Relaxed) {
                let Ok(len) = socket.recv(&mut frame) else {
                    continue;
                };
                if let Some(reply) = frame.get(..len).and_then(|f| server.reply(f)) {
                    let _ = socket.send_to(&reply, &hub);
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    net: [u8; 3],
    known: Vec<[u8; 6]>,
}

impl Server {
    fn at(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, host)
    }

    /// The answer to a frame that is a client's DHCPDISCOVER or DHCPREQUEST.
    fn reply(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let udp = frame.get(12..14)? == [8, 0] && frame.get(14)? == &0x45 && frame.get(23)? == &17;
        let message = frame.get(HEADERS..)?;
        if !udp || frame.get(36..38)? != [0, 67] || message.get(FIELDS..FIELDS + 4)? != COOKIE {
            return None;
        }
        let kind = match option(message.get(FIELDS + 4..)?, 53)? {
            [1] => 2,
            [3] => 5,
            _ => return None,
        };
        let mac: [u8; 6] = message.get(28..34)?.try_into().ok()?;
        let place = self.known.iter().position(|k| *k == mac);
        let place = place.unwrap_or_else(|| {
            self.known.push(mac);
            self.known.len() - 1
        });
        let address = self.at(u8::try_from(10 + place).ok()?);
        let own = self.at(1).octets();

        let mut reply = message.get(..FIELDS)?.to_vec();
        reply[0] = 2;
        reply[16..20].copy_from_slice(&address.octets());
        reply[20..24].copy_from_slice(&own);
        reply.extend(COOKIE);
        reply.extend([53, 1, kind, 54, 4]);
        reply.extend(own);
        reply.extend([51, 4]);
        reply.extend(LEASE.to_be_bytes());
        reply.extend([1, 4, 255, 255, 255, 0, 255]);
        Some(datagram(mac, own, &reply))
    }
}

/// The value of a DHCP option.
fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [0, rest @ ..] => options = rest,
            [code, len, rest @ ..] if *code != 255 => {
                let value = rest.get(..usize::from(*len))?;
                if *code == wanted {
                    return Some(value);
                }
                options = rest.get(usize::from(*len)..)?;
            }
            _ => return None,
        }
    }
}

/// A broadcast from port 67 to port 68, to one machine; UDP over IPv4 may go without a checksum.
fn datagram(to: [u8; 6], from: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = |headers: usize| u16::try_from(headers + payload.len()).unwrap_or(u16::MAX);
    let mut ip = vec![0x45, 0];
    ip.extend(len(28).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(from);
    ip.extend([255; 4]);
    let sum: u32 = ip
        .chunks_exact(2)
        .map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = [to, MAC].concat();
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend([0, 67, 0, 68]);
    frame.extend(len(8).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(mac: u8, kind: u8) -> Vec<u8> {
        let mut message = vec![0; FIELDS];
        message[28..34].copy_from_slice(&[2, 0, 0, 0, 1, mac]);
        message.extend(COOKIE);
        message.extend([12, 2, b'n', b'1', 0, 53, 1, kind, 255]);
        let mut frame = datagram([255; 6], [0; 4], &message);
        // To the server's port.
        frame[34..38].copy_from_slice(&[0, 68, 0, 67]);
        frame
    }

    #[test]
    fn a_machine_is_told_the_same_address_again() {
        let net = [192, 168, 77];
        let mut server = Server { net, known: vec![] };
        let mut told = |mac, kind| {
            let reply = server.reply(&asks(mac, kind))?;
            let options = &reply[HEADERS + FIELDS + 4..];
            assert_eq!(option(options, 54), Some(&[192, 168, 77, 1][..]));
            let kind = option(options, 53)?[0];
            Some((kind, reply[HEADERS + 16 + 3]))
        };
        assert_eq!(told(1, 1), Some((2, 10)));
        assert_eq!(told(1, 3), Some((5, 10)));
        assert_eq!(told(2, 1), Some((2, 11)));
        assert_eq!(told(1, 1), Some((2, 10)));
        // A release is not answered.
        assert_eq!(told(1, 7), None);
        assert_eq!(server.reply(&asks(1, 1)[..200]), None);
        // An IPv4 header with its checksum adds up to all ones (RFC 1071).
        let frame = server.reply(&asks(1, 1)).unwrap();
        let sum: u32 = frame[14..34]
            .chunks(2)
            .map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
