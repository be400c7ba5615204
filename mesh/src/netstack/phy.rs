//! The stack's "wire": two queues.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use std::collections::VecDeque;

/// Packets kept for the engine before the stack has to wait.
const SEND_QUEUE: usize = 256;

/// Packets that came in and packets that are to go out.
pub(super) struct Queues {
    pub received: VecDeque<Vec<u8>>,
    pub to_send: VecDeque<Vec<u8>>,
    pub mtu: usize,
}

pub(super) struct Received(Vec<u8>);
pub(super) struct Send<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Send<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Send<'_>)> {
        if self.to_send.len() >= SEND_QUEUE {
            return None;
        }
        let packet = self.received.pop_front()?;
        Some((Received(packet), Send(&mut self.to_send)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Send<'_>> {
        (self.to_send.len() < SEND_QUEUE).then_some(Send(&mut self.to_send))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
