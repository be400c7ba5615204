//! Name servers from router advertisements (RFC 8106). The kernel takes addresses and routes from
//! them, and hands what it does not use itself to whoever listens.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// `RTM_NEWNDUSEROPT` (kernel `rtnetlink.h`).
const NEW_USER_OPTION: u16 = 68;
/// Length of a netlink message's head, in bytes,
const HEAD: usize = 16;
/// and of `struct nduseroptmsg`.
const USER_OPTION: usize = 16;
/// ICMPv6's type of a router advertisement (RFC 4861).
const ADVERTISEMENT: u8 = 134;
/// The option of recursive DNS servers.
const RDNSS: u8 = 25;
/// A lifetime without end, in seconds.
const FOR_EVER: u32 = u32::MAX;
/// So many are kept of an interface: a resolver uses three.
const KEPT: usize = 4;

/// A name server on an interface, as a router advertises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// The interface's number.
    pub interface: u32,
    /// The server.
    pub server: Ipv6Addr,
    /// How long it may be used from now on, in seconds; zero: no longer.
    pub lifetime: u32,
}

/// Name servers in a datagram of the kernel's; what is not understood is left out.
pub fn parse(mut datagram: &[u8]) -> Vec<Advertisement> {
    let mut told = vec![];
    while let Some(length) = word(datagram, 0) {
        let length = length as usize;
        let Some(message) = datagram.get(..length).filter(|m| m.len() >= HEAD) else {
            break;
        };
        if half(message, 4) == Some(NEW_USER_OPTION) {
            told.extend(options(&message[HEAD..]));
        }
        // Messages begin at multiples of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    told
}

/// `struct nduseroptmsg` and what follows it.
fn options(message: &[u8]) -> Vec<Advertisement> {
    let (Some(length), Some(interface)) = (half(message, 2), word(message, 4)) else {
        return vec![];
    };
    let end = USER_OPTION + usize::from(length);
    let family = message.first().map(|f| i32::from(*f));
    let (Some(mut rest), Some(&kind)) = (message.get(USER_OPTION..end), message.get(8)) else {
        return vec![];
    };
    if family != Some(libc::AF_INET6) || kind != ADVERTISEMENT {
        return vec![];
    }
    let mut told = vec![];
    while let [kind, eights, ..] = *rest {
        let length = usize::from(eights) * 8;
        let Some(option) = rest.get(..length).filter(|_| length > 0) else {
            break;
        };
        if kind == RDNSS {
            told.extend(servers(interface, option));
        }
        rest = &rest[length..];
    }
    told
}

fn servers(interface: u32, option: &[u8]) -> Vec<Advertisement> {
    let Some((head, servers)) = option.split_first_chunk::<8>() else {
        return vec![];
    };
    let [_, _, _, _, lifetime @ ..] = *head;
    let (servers, _) = servers.as_chunks::<16>();
    let servers = servers.iter().map(|s| Ipv6Addr::from(*s));
    servers
        .filter(|s| !s.is_unspecified() && !s.is_multicast() && !s.is_loopback())
        .map(|server| Advertisement {
            interface,
            server,
            lifetime: u32::from_be_bytes(lifetime),
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

#[derive(Debug)]
struct Server {
    interface: u32,
    at: Ipv6Addr,
    /// None: for ever.
    until: Option<Instant>,
}

/// The name servers that routers told of, the last one first.
#[derive(Debug, Default)]
pub struct Advertised(Vec<Server>);

impl Advertised {
    /// Takes what a router says; whether the servers are others than before.
    pub fn hear(&mut self, told: Advertisement, now: Instant) -> bool {
        let held = |s: &Server| s.interface == told.interface && s.at == told.server;
        let place = self.0.iter().position(held);
        if told.lifetime == 0 {
            return place.map(|at| self.0.remove(at)).is_some();
        }
        let lasts = Duration::from_secs(told.lifetime.into());
        let until = (told.lifetime != FOR_EVER).then(|| now + lasts);
        if let Some(server) = place.and_then(|at| self.0.get_mut(at)) {
            let ran_out = server.until.is_some_and(|t| t <= now);
            server.until = until;
            return ran_out;
        }
        let fresh = Server {
            interface: told.interface,
            at: told.server,
            until,
        };
        self.0.insert(0, fresh);
        let mut kept = 0;
        self.0.retain(|s| {
            kept += usize::from(s.interface == told.interface);
            s.interface != told.interface || kept <= KEPT
        });
        true
    }

    /// Forgets an interface's: its link may be another network's now.
    pub fn forget(&mut self, interface: u32) {
        self.0.retain(|s| s.interface != interface);
    }

    /// An interface's name servers. Without any that lives, those whose time has run out: a router
    /// that says too short a one must not keep the machine from the names that it needs.
    pub fn servers(&self, interface: u32, now: Instant) -> Vec<Ipv6Addr> {
        let own = || self.0.iter().filter(|s| s.interface == interface);
        let lives = |s: &&Server| s.until.is_none_or(|t| t > now);
        let mut found: Vec<_> = own().filter(lives).map(|s| s.at).collect();
        if found.is_empty() {
            found = own().map(|s| s.at).collect();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(server: &str, lifetime: u32) -> Advertisement {
        Advertisement {
            interface: 2,
            server: server.parse().unwrap(),
            lifetime,
        }
    }

    #[test]
    fn what_lives_is_used_and_what_ran_out_only_when_nothing_else_is_there() {
        let (mut held, now) = (Advertised::default(), Instant::now());
        let at = |s| now + Duration::from_secs(s);
        assert!(held.hear(told("2001:db8::1", 10), now));
        assert!(held.hear(told("2001:db8::2", 20), now));
        assert!(!held.hear(told("2001:db8::1", 10), at(5)));
        let servers = |held: &Advertised, s| {
            let all = held.servers(2, at(s)).into_iter().map(|s| s.to_string());
            all.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(servers(&held, 14), "2001:db8::2 2001:db8::1");
        assert_eq!(servers(&held, 16), "2001:db8::2");
        assert_eq!(servers(&held, 21), "2001:db8::2 2001:db8::1");
        assert!(held.servers(3, now).is_empty());
        // Withdrawn is withdrawn.
        assert!(held.hear(told("2001:db8::2", 0), at(21)));
        assert_eq!(servers(&held, 21), "2001:db8::1");
        held.hear(told("2001:db8::3", FOR_EVER), at(21));
        assert_eq!(servers(&held, 1 << 30), "2001:db8::3");
        held.forget(2);
        assert_eq!(servers(&held, 21), "");
    }

    #[test]
    fn a_router_that_tells_of_ever_more_fills_nothing() {
        let (mut held, now) = (Advertised::default(), Instant::now());
        held.hear(
            Advertisement {
                interface: 3,
                ..told("2001:db8::9", 9)
            },
            now,
        );
        for n in 0..100 {
            held.hear(told(&format!("2001:db8::1:{n}"), 9), now);
        }
        assert_eq!(held.servers(2, now).len(), KEPT);
        assert_eq!(held.servers(2, now)[0].to_string(), "2001:db8::1:99");
        assert_eq!(held.servers(3, now).len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
            let mut message = ((HEAD + bytes.len()) as u32).to_ne_bytes().to_vec();
            message.extend(NEW_USER_OPTION.to_ne_bytes());
            message.resize(HEAD, 0);
            message.extend(bytes);
            parse(&message);
        }
    }
}
