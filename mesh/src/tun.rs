//! A TUN device, opened by name with offload.

use crate::error::MeshError;
use crate::merge::Merger;
use std::io;
use std::sync::Arc;
use tun_rs::{AsyncDevice, DeviceBuilder, VIRTIO_NET_HDR_LEN};

/// A TUN device for [`Mesh::start`](crate::Mesh::start). Address, routes and link state are the
/// caller's; a persistent device keeps them while nobody is attached.
pub struct Tun {
    device: Arc<AsyncDevice>,
    mtu: usize,
}

impl Tun {
    /// Attaches to the TUN device `name`, or makes it (it then vanishes with this value). An
    /// existing one must have been made with `IFF_TUN | IFF_NO_PI | IFF_VNET_HDR`. Offload is
    /// switched on. Needs a tokio runtime and `CAP_NET_ADMIN` (or to be the device's owner).
    ///
    /// # Errors
    /// [`MeshError::Tun`].
    pub fn open(name: &str) -> Result<Self, MeshError> {
        let open = || -> io::Result<Self> {
            let device = DeviceBuilder::new()
                .name(name)
                .offload(true)
                .inherit_enable_state()
                .build_async()?;
            let mtu = usize::from(device.mtu()?);
            Ok(Self {
                device: Arc::new(device),
                mtu,
            })
        };
        open().map_err(|source| MeshError::Tun {
            name: name.to_owned(),
            source,
        })
    }

    pub(crate) fn split(self) -> (TunReader, TunWriter) {
        (
            TunReader::new(self.device.clone(), self.mtu),
            TunWriter::new(self.device),
        )
    }
}

/// Segments of one read: 64 KiB in segments of 536 bytes, TCP's smallest usual.
const READ_SEGMENTS: usize = 128;
/// Once this many packets are read, the batch is sent before more are looked for.
const ENOUGH_PACKETS: usize = 64;
/// Likewise for bytes.
const ENOUGH_BYTES: usize = 48 * 1024;

/// Reads large segments and cuts them to packets.
pub(crate) struct TunReader {
    device: Arc<AsyncDevice>,
    whole: Vec<u8>,
    packets: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    filled: usize,
}

impl TunReader {
    fn new(device: Arc<AsyncDevice>, mtu: usize) -> Self {
        let packet = mtu.max(2000) + 48;
        Self {
            device,
            whole: vec![0; VIRTIO_NET_HDR_LEN + 65_535],
            packets: vec![vec![0; packet]; READ_SEGMENTS],
            sizes: vec![0; READ_SEGMENTS],
            filled: 0,
        }
    }

    /// Waits for packets, then takes what else is there, up to a batch.
    pub(crate) async fn read(&mut self) -> io::Result<()> {
        self.filled = 0;
        self.filled = self
            .device
            .recv_multiple(&mut self.whole, &mut self.packets, &mut self.sizes, 0)
            .await?;
        while self.filled < ENOUGH_PACKETS && self.bytes() < ENOUGH_BYTES {
            let (packets, sizes) = (
                &mut self.packets[self.filled..],
                &mut self.sizes[self.filled..],
            );
            match self
                .device
                .try_recv_multiple(&mut self.whole, packets, sizes, 0)
            {
                Ok(more) => self.filled += more,
                // Nothing there, or a packet that cannot be cut: what was read goes out first.
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.sizes[..self.filled].iter().sum()
    }

    pub(crate) fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let both = self.packets.iter().zip(&self.sizes).take(self.filled);
        both.map(|(packet, size)| &packet[..*size])
    }
}

/// Merges TCP segments and writes them.
pub(crate) struct TunWriter {
    device: Arc<AsyncDevice>,
    merger: Merger,
}

impl TunWriter {
    fn new(device: Arc<AsyncDevice>) -> Self {
        Self {
            device,
            merger: Merger::default(),
        }
    }

    pub(crate) fn push(&mut self, packet: &[u8]) {
        self.merger.push(packet);
    }

    /// Writes everything pushed. A packet that the system refuses is dropped; an error means
    /// that the device is gone.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        for frame in self.merger.finish() {
            if let Err(e) = self.device.send(frame).await {
                if gone(&e) {
                    return Err(e);
                }
                tracing::debug!(
                    "the TUN device refused a packet of {} bytes: {e}",
                    frame.len()
                );
            }
        }
        self.merger.clear();
        Ok(())
    }
}

/// The device was deleted under us.
pub(crate) fn gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EBADFD | libc::EBADF | libc::ENODEV)
    )
}
