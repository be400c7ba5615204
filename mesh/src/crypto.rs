//! The cryptography of one peer: handshake, sessions, encryption.
//!
//! Behind a trait, so that an implementation whose sessions need no lock can take boringtun's
//! place: today both directions of one peer take turns.

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use std::net::IpAddr;
use std::time::Duration;

/// What a datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened<'a> {
    /// Not authentic, or of no use now.
    Refused,
    /// Authentic, without an inner packet.
    Authentic,
    /// Authentic; the inner packet and its source.
    Packet(&'a [u8], IpAddr),
    /// Authentic, and this is the answer to it.
    Answer(&'a [u8]),
}

/// What the timers ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// A message of this length, written to the room.
    Message(usize),
    /// The peer did not answer in all the time that is given to it.
    Silent,
}

/// The WireGuard protocol with one peer. Messages are written to a room of the caller's, which is
/// as long as the packet with its overhead, and [`MIN_ROOM`](crate::outbox::MIN_ROOM) at least.
pub(crate) trait Crypto: Send {
    /// Encrypts a packet (an empty one is a keepalive) and gives the datagram's length. To be
    /// called while there is a session; else it may give a handshake message instead.
    fn seal(&mut self, packet: &[u8], room: &mut [u8]) -> Option<usize>;

    /// Takes in a datagram; `plain` is at least as long.
    fn open<'a>(&mut self, datagram: &[u8], plain: &'a mut [u8]) -> Opened<'a>;

    /// Begins a handshake and gives the message's length; `again` also while one is under way.
    fn begin(&mut self, again: bool, room: &mut [u8]) -> Option<usize>;

    /// A datagram that had to wait for a session, if there is one still.
    fn waiting(&mut self, room: &mut [u8]) -> Option<usize>;

    /// To be called every 250 ms.
    fn tick(&mut self, room: &mut [u8]) -> Due;

    /// Age of the session in use.
    fn session(&self) -> Option<Duration>;
}

fn written(result: &TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message.len()),
        _ => None,
    }
}

impl Crypto for Tunn {
    fn seal(&mut self, packet: &[u8], room: &mut [u8]) -> Option<usize> {
        written(&self.encapsulate(packet, room))
    }

    fn open<'a>(&mut self, datagram: &[u8], plain: &'a mut [u8]) -> Opened<'a> {
        match self.decapsulate(None, datagram, plain) {
            TunnResult::Err(e) => {
                tracing::trace!("a datagram was refused: {e:?}");
                Opened::Refused
            }
            TunnResult::Done => Opened::Authentic,
            TunnResult::WriteToTunnelV4(packet, source) => Opened::Packet(packet, source.into()),
            TunnResult::WriteToTunnelV6(packet, source) => Opened::Packet(packet, source.into()),
            TunnResult::WriteToNetwork(answer) => Opened::Answer(answer),
        }
    }

    fn begin(&mut self, again: bool, room: &mut [u8]) -> Option<usize> {
        written(&self.format_handshake_initiation(room, again))
    }

    /// boringtun queues the keepalives that its timers send without a session; it hands them
    /// out when called with an empty datagram.
    fn waiting(&mut self, room: &mut [u8]) -> Option<usize> {
        written(&self.decapsulate(None, &[], room))
    }

    fn tick(&mut self, room: &mut [u8]) -> Due {
        match self.update_timers(room) {
            TunnResult::WriteToNetwork(message) => Due::Message(message.len()),
            TunnResult::Err(WireGuardError::ConnectionExpired) => Due::Silent,
            _ => Due::Nothing,
        }
    }

    fn session(&self) -> Option<Duration> {
        self.time_since_last_handshake()
    }
}
