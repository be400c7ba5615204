//! Moving batches between device and socket, one way each; a thread runs one of them or both.

use crate::batch::Batch;
use crate::device::{Reader, Writer};
use crate::engine::Engine;
use crate::error::MeshError;
use crate::outbox::Outbox;
use crate::socket::{self, MeshSocket, RECEIVE_BATCH, RECEIVE_BUFFER};
use crate::stop::Stop;
use crate::tun::gone;
use quinn_udp::RecvMeta;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One direction.
pub(crate) trait Pump {
    /// Moves a batch of what is there; false when there was nothing.
    ///
    /// # Errors
    /// What ends the mesh.
    fn step(&mut self) -> Result<bool, MeshError>;

    /// Readable when there is something.
    fn source(&self) -> BorrowedFd<'_>;
}

/// Moves in all directions of `pumps` in turn, until stopped; gives why it ended.
pub(crate) fn run(stop: &Stop, pumps: &mut [&mut dyn Pump]) -> MeshError {
    while !stop.raised() {
        let mut moved = false;
        for pump in pumps.iter_mut() {
            match pump.step() {
                Ok(some) => moved |= some,
                Err(why) => return why,
            }
        }
        if !moved && let Err(e) = stop.readable(pumps.iter().map(|pump| pump.source())) {
            tracing::debug!("waiting for packets: {e}");
            stop.sleep(BREATH);
        }
    }
    MeshError::Stopped
}

/// Device to socket.
pub(crate) struct Outward {
    engine: Arc<Engine>,
    socket: Arc<MeshSocket>,
    reader: Reader,
    batch: Batch,
    out: Outbox,
    failures: Failures,
}

impl Outward {
    pub(crate) fn new(engine: Arc<Engine>, socket: Arc<MeshSocket>, reader: Reader) -> Self {
        Self {
            engine,
            socket,
            reader,
            batch: Batch::new(),
            out: Outbox::default(),
            failures: Failures::default(),
        }
    }
}

impl Pump for Outward {
    fn step(&mut self) -> Result<bool, MeshError> {
        self.batch.clear();
        match self.reader.take(&mut self.batch) {
            Ok(true) => self.failures = Failures::default(),
            Ok(false) => return Err(MeshError::Stopped),
            Err(e) if gone(&e) => return Err(MeshError::Device(e)),
            Err(e) => {
                tracing::debug!("reading from the mesh device: {e}");
                self.failures.one(self.socket.stop());
                return Ok(false);
            }
        }
        if self.batch.is_empty() {
            return Ok(false);
        }
        self.engine
            .outbound(&mut self.batch, &mut self.out, Instant::now());
        self.socket.send(&mut self.out).map_err(MeshError::Socket)?;
        Ok(true)
    }

    fn source(&self) -> BorrowedFd<'_> {
        self.reader.fd()
    }
}

/// Socket to device.
pub(crate) struct Inward {
    engine: Arc<Engine>,
    socket: Arc<MeshSocket>,
    writer: Writer,
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; RECEIVE_BATCH],
    out: Outbox,
    failures: Failures,
}

impl Inward {
    pub(crate) fn new(engine: Arc<Engine>, socket: Arc<MeshSocket>, writer: Writer) -> Self {
        Self {
            engine,
            socket,
            writer,
            buffers: vec![vec![0; RECEIVE_BUFFER]; RECEIVE_BATCH],
            metas: [RecvMeta::default(); RECEIVE_BATCH],
            out: Outbox::default(),
            failures: Failures::default(),
        }
    }
}

impl Pump for Inward {
    fn step(&mut self) -> Result<bool, MeshError> {
        let filled = match self.socket.receive(&mut self.buffers, &mut self.metas) {
            Ok(filled) => {
                self.failures = Failures::default();
                filled
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if fatal(&e) => return Err(MeshError::Socket(e)),
            Err(e) => {
                tracing::debug!("receiving on the mesh's UDP socket: {e}");
                self.failures.one(self.socket.stop());
                return Ok(false);
            }
        };
        for (buffer, meta) in self.buffers.iter().zip(&self.metas).take(filled) {
            self.engine.inbound(
                socket::source(meta),
                &buffer[..meta.len.min(buffer.len())],
                meta.stride,
                &mut self.writer,
                &mut self.out,
                Instant::now(),
            );
            self.writer
                .flush(self.socket.stop())
                .map_err(MeshError::Device)?;
        }
        if !self.out.is_empty() {
            self.socket.send(&mut self.out).map_err(MeshError::Socket)?;
        }
        Ok(true)
    }

    fn source(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

/// How long something that goes on failing is left alone.
const BREATH: Duration = Duration::from_millis(50);

/// Errors in a row: one that is a packet's passes at once; one that stays must not take the
/// processor.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    fn one(&mut self, stop: &Stop) {
        self.0 = self.0.saturating_add(1);
        if self.0 > 16 {
            stop.sleep(BREATH);
        }
    }
}

/// The descriptor itself is bad; everything else (an ICMP error handed up) passes.
fn fatal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK))
}
