//! A TUN device, opened by name with offload.

use crate::batch::Batch;
use crate::error::MeshError;
use crate::gso_size;
use crate::merge::Merger;
use crate::split;
use crate::stop::Stop;
use crate::vnet::{self, VNET_HEADER};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use tun_rs::{DeviceBuilder, SyncDevice};

/// A TUN device for [`Mesh::start`](crate::Mesh::start). Address, routes and link state are the
/// caller's; a persistent device keeps them while nobody is attached.
pub struct Tun {
    device: Arc<SyncDevice>,
}

impl Tun {
    /// Attaches to the TUN device `name`, or makes it (it then vanishes with this value). An
    /// existing one must have been made with `IFF_TUN | IFF_NO_PI | IFF_VNET_HDR`. Offload is
    /// switched on. Needs `CAP_NET_ADMIN` (or to be the device's owner).
    ///
    /// # Errors
    /// [`MeshError::Tun`].
    pub fn open(name: &str) -> Result<Self, MeshError> {
        let open = || -> io::Result<Self> {
            let device = DeviceBuilder::new()
                .name(name)
                .offload(true)
                .inherit_enable_state()
                .build_sync()?;
            device.set_nonblocking(true)?;
            if let Err(e) = device.if_index().and_then(gso_size::limit) {
                tracing::debug!("{name} keeps its largest segment: {e}");
            }
            Ok(Self {
                device: Arc::new(device),
            })
        };
        open().map_err(|source| MeshError::Tun {
            name: name.to_owned(),
            source,
        })
    }

    pub(crate) fn split(self) -> (TunReader, TunWriter) {
        (TunReader(self.device.clone()), TunWriter::new(self.device))
    }
}

/// Reads frames: up to 64 KiB of one connection, to be cut to packets.
pub(crate) struct TunReader(Arc<SyncDevice>);

impl TunReader {
    /// Takes what is there, up to a batch.
    pub(crate) fn read(&self, batch: &mut Batch) -> io::Result<()> {
        while !batch.full() {
            match self.0.recv(batch.room()) {
                Ok(len) => batch.commit(len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // What was read goes out first.
                Err(e) if batch.is_empty() => return Err(e),
                Err(_) => break,
            }
        }
        Ok(())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Merges TCP segments and writes them.
pub(crate) struct TunWriter {
    device: Arc<SyncDevice>,
    merger: Merger,
    /// Until the kernel refuses a merged packet.
    merge: bool,
}

/// Makes writers as long as the device is held elsewhere.
#[derive(Clone)]
pub(crate) struct SpareTun(Weak<SyncDevice>);

impl SpareTun {
    pub(crate) fn writer(&self) -> Option<TunWriter> {
        Some(TunWriter::new(self.0.upgrade()?))
    }
}

impl TunWriter {
    fn new(device: Arc<SyncDevice>) -> Self {
        Self {
            device,
            merger: Merger::default(),
            merge: true,
        }
    }

    pub(crate) fn spare(&self) -> SpareTun {
        SpareTun(Arc::downgrade(&self.device))
    }

    pub(crate) fn merger(&mut self) -> &mut Merger {
        &mut self.merger
    }

    /// Writes everything taken. A packet that the system refuses is dropped; an error means
    /// that the device is gone.
    pub(crate) fn flush(&mut self, stop: &Stop) -> io::Result<()> {
        for frame in self.merger.finish() {
            let merged = vnet::read(frame).is_some_and(|vnet| vnet.gso.is_some());
            let result = if merged && !self.merge {
                singly(&self.device, frame, stop)
            } else {
                written(stop, &self.device, || self.device.send(frame))
            };
            match result {
                Err(e) if gone(&e) => return Err(e),
                Err(e) if merged && self.merge && e.raw_os_error() == Some(libc::EINVAL) => {
                    tracing::info!("the TUN device takes no merged packets ({e})");
                    self.merge = false;
                    singly(&self.device, frame, stop)?;
                }
                Err(e) => tracing::debug!(
                    "the TUN device refused a packet of {} bytes: {e}",
                    frame.len()
                ),
                Ok(()) => {}
            }
        }
        self.merger.clear();
        Ok(())
    }
}

/// Cuts a merged frame again; an error means that the device is gone.
fn singly(device: &SyncDevice, frame: &mut [u8], stop: &Stop) -> io::Result<()> {
    let Some(mut segments) = split::segments(frame) else {
        return Ok(());
    };
    while let Some(packet) = segments.next() {
        let parts = [IoSlice::new(&[0; VNET_HEADER]), IoSlice::new(packet)];
        match written(stop, device, || device.send_vectored(&parts)) {
            Err(e) if gone(&e) => return Err(e),
            Err(e) => tracing::debug!("the TUN device refused a packet: {e}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Writes, waiting for room.
fn written(
    stop: &Stop,
    device: &SyncDevice,
    mut write: impl FnMut() -> io::Result<usize>,
) -> io::Result<()> {
    loop {
        match write() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !stop.raised() => {
                stop.writable(device.as_fd())?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// The device was deleted under us.
pub(crate) fn gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADFD | libc::EBADF | libc::ENODEV)
    )
}
