//! When a handshake is begun, and what its end brings.

use super::PeerState;
use crate::outbox::{MIN_ROOM, Outbox};
use crate::pending::Pending;
use crate::retry::{self, View};
use crate::way::Way;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A way was found: a handshake that is under way on another that works is begun anew after so long.
const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(300);

impl PeerState {
    /// The way may be another than before: who waits for a session asks on the new one.
    pub(super) fn found(
        &mut self,
        before: Option<Way>,
        packets_wait: bool,
        out: &mut Outbox,
        now: Instant,
    ) {
        let current = self.paths.current();
        if current == before {
            return;
        }
        if let Some(way) = current {
            tracing::debug!("peer {} is reached by {way} now", self.key);
        }
        let patience = HANDSHAKE_PATIENCE.max(self.paths.usual_rtt().unwrap_or_default());
        // What went to a mere guess is most likely lost: nothing is waited for then.
        let under_way = before.is_some_and(|way| self.paths.works(way, now));
        let patient = |at| under_way && now.saturating_duration_since(at) < patience;
        let wanted = packets_wait || self.kept_in_touch();
        if !self.live && wanted && !self.asked_at.is_some_and(patient) {
            self.ask(true, out, now);
        }
    }

    /// A peer that was heard since it was asked for a handshake lost that, or its answer got lost: one
    /// begins anew without waiting for the protocol's 5 s; later each time, lest a peer that refuses
    /// be asked for ever.
    pub(super) fn repeat_handshake(&mut self, packets_wait: bool, out: &mut Outbox, now: Instant) {
        let wanted = !self.live && (packets_wait || self.kept_in_touch());
        let Some(asked) = self.asked_at.filter(|_| wanted) else {
            return;
        };
        let patience = HANDSHAKE_PATIENCE + 2 * self.paths.usual_rtt().unwrap_or_default();
        let patience = patience.saturating_mul(1 << self.repeated.min(8));
        let heard = self.paths.heard_last().is_some_and(|at| at > asked);
        if heard && now.saturating_duration_since(asked) >= patience {
            self.repeated = self.repeated.saturating_add(1);
            self.ask(true, out, now);
        }
    }

    /// Age of the session in use.
    pub(crate) fn session(&self) -> Option<Duration> {
        self.crypto.session()
    }

    /// Asks for a handshake when it is time to ([`retry::due`]).
    pub(crate) fn ask_if_due(&mut self, packets_wait: bool, out: &mut Outbox, now: Instant) {
        if packets_wait {
            let mut asks = vec![];
            self.paths.want(now, &mut asks);
            self.carry_out(asks, out);
        }
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let view = View {
            has_endpoint: self.paths.current().is_some(),
            session: self.session(),
            gave_up: self.gave_up_at.is_some(),
            since_gave_up: since(self.gave_up_at).unwrap_or_default(),
            failures: self.failures,
            since_asked: since(self.asked_at),
            wanted: self.kept_in_touch(),
            packets_wait,
            second: self.second,
        };
        if retry::due(&view) {
            self.ask(false, out, now);
        }
    }

    /// Whether a session is wanted without traffic.
    pub(crate) fn kept_in_touch(&self) -> bool {
        self.always_on || self.keepalive.is_some()
    }

    /// Asks for a handshake now; `again` also while one is under way.
    pub(crate) fn ask(&mut self, again: bool, out: &mut Outbox, now: Instant) {
        let Some(to) = self.paths.current() else {
            return;
        };
        self.asked_at = Some(now);
        self.gave_up_at = None;
        let room = out.room(to, MIN_ROOM);
        if let Some(len) = self.crypto.begin(again, room) {
            self.sent(to, len, out, now);
        }
    }

    /// A session has come since [`live`](Self::live) was last true: sends what waited for it.
    /// To be called after everything authentic.
    pub(crate) fn settle(
        &mut self,
        index: u32,
        pending: &Mutex<Pending>,
        out: &mut Outbox,
        now: Instant,
    ) -> bool {
        if self.live || self.session().is_none() {
            return false;
        }
        self.live = true;
        (self.failures, self.repeated) = (0, 0);
        self.paths.failed(0, now);
        self.gave_up_at = None;
        if self.relay {
            let mut asks = vec![];
            self.paths.watch(Duration::ZERO, now, &mut asks);
            self.carry_out(asks, out);
        }
        self.drain(out, now);
        let waiting = pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(index);
        for packet in waiting {
            self.send(&packet, out, now);
        }
        true
    }

    /// Sends what the protocol itself kept for the session.
    fn drain(&mut self, out: &mut Outbox, now: Instant) {
        let Some(to) = self.paths.current() else {
            return;
        };
        while let Some(len) = self.crypto.waiting(out.room(to, MIN_ROOM)) {
            self.sent(to, len, out, now);
        }
    }
}
