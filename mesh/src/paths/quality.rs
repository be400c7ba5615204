//! What the way in use carries: its size and its loss.

use super::{Ask, IN_USE, Paths, mtu};
use std::time::Instant;

/// How good the way in use is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quality {
    /// Bytes of the largest IP packet that came through whole, of those tried.
    pub mtu: Option<u16>,
    /// Full datagrams do not.
    pub narrow: bool,
    /// In percent.
    pub loss: Option<u8>,
}

impl Paths {
    /// What the way in use carries: the largest IP packet that was answered, whether larger ones are
    /// cut, and the loss in percent.
    pub(crate) fn quality(&self, now: Instant) -> Quality {
        let Some(path) = self.current.and_then(|way| self.path(way)) else {
            return Quality::default();
        };
        let headers = if path.way.next_hop().is_ipv4() {
            28
        } else {
            48
        };
        Quality {
            mtu: path.mtu.carries().map(|payload| payload + headers),
            narrow: path.mtu.narrow(),
            loss: path.loss(now),
        }
    }

    /// The UDP payload that the way in use carries whole, when that is less than a full datagram.
    pub(crate) fn narrow(&self) -> Option<u16> {
        let path = self.current.and_then(|way| self.path(way))?;
        let least = mtu::SIZES[mtu::SIZES.len() - 1];
        path.mtu
            .narrow()
            .then(|| path.mtu.carries().unwrap_or(least))
    }

    /// Measures what the way in use carries; `always`: also without traffic.
    pub(crate) fn measure(&mut self, always: bool, now: Instant, asks: &mut Vec<Ask>) {
        let recent = |at: Option<Instant>| at.is_some_and(|at| now - at < IN_USE);
        let Some(way) = self.current.filter(|w| !w.is_relayed() && !w.is_stream()) else {
            return;
        };
        if self.plain || !(always || recent(self.used) || recent(self.relays)) {
            return;
        }
        let number = self.next_number();
        let Some(path) = self.path_mut(way).filter(|p| p.alive(now)) else {
            return;
        };
        if path.silence(now) > path.late() {
            path.mtu.unsure();
        } else if let Some(size) = path.mtu.due(path.usual().unwrap_or_default(), number, now) {
            asks.push(Ask::Measure(way, number, size));
        }
    }
}
