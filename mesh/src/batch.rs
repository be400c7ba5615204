//! What was read from the device at one time, to be encrypted and sent together.

use crate::split::{self, Segments};
use crate::vnet::VNET_HEADER;
use std::ops::Range;

/// The longest frame: vnet header and IP packet.
const MAX_FRAME: usize = VNET_HEADER + 65_535;
/// A batch with this many frames or bytes is worked on before more is looked for.
const ENOUGH_FRAMES: usize = 64;
const ENOUGH_BYTES: usize = 48 * 1024;

/// One read of the device.
#[derive(Debug)]
struct Frame {
    bytes: Range<usize>,
    /// Index of the peer it is for.
    peer: Option<u32>,
}

/// Frames one behind the other in one buffer, allocated once.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    used: usize,
    frames: Vec<Frame>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; ENOUGH_BYTES + MAX_FRAME],
            used: 0,
            frames: Vec::with_capacity(ENOUGH_FRAMES),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.frames.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// It is time to work on it; until then there is [`room`](Self::room) for a frame.
    pub(crate) fn full(&self) -> bool {
        self.frames.len() >= ENOUGH_FRAMES || self.used >= ENOUGH_BYTES
    }

    /// Room for one frame; [`commit`](Self::commit) tells how long it became.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..]
    }

    pub(crate) fn commit(&mut self, len: usize) {
        let bytes = self.used..(self.used + len).min(self.bytes.len());
        self.used = bytes.end;
        self.frames.push(Frame { bytes, peer: None });
    }

    /// Adds a finished packet; false when it finds no room.
    pub(crate) fn push(&mut self, packet: &[u8]) -> bool {
        let len = VNET_HEADER + packet.len();
        let Some(room) = self.room().get_mut(..len) else {
            return false;
        };
        room[..VNET_HEADER].fill(0);
        room[VNET_HEADER..].copy_from_slice(packet);
        self.commit(len);
        true
    }

    /// Brings the frames of each peer together, in their order; `peer_of` gives the peer of a
    /// packet's headers. Frames for nobody are left out of [`group`](Self::group).
    pub(crate) fn sort(&mut self, mut peer_of: impl FnMut(&[u8]) -> Option<u32>) {
        for frame in &mut self.frames {
            let packet = self.bytes[frame.bytes.clone()].get(VNET_HEADER..);
            frame.peer = packet.and_then(&mut peer_of);
        }
        let key = |frame: &Frame| (frame.peer, frame.bytes.start);
        self.frames.sort_unstable_by_key(key);
    }

    /// The peer and the frames of the group that begins at frame `first`, after
    /// [`sort`](Self::sort); `None` after the last one.
    pub(crate) fn group(&self, first: usize) -> Option<(Option<u32>, Range<usize>)> {
        let peer = self.frames.get(first)?.peer;
        let same = self.frames[first..].iter().take_while(|f| f.peer == peer);
        Some((peer, first..first + same.count()))
    }

    /// The packets of one frame; `None` when it makes no sense.
    pub(crate) fn segments(&mut self, frame: usize) -> Option<Segments<'_>> {
        let bytes = self.frames.get(frame)?.bytes.clone();
        split::segments(&mut self.bytes[bytes])
    }
}
