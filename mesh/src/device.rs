//! What carries the inner packets: a TUN device, or the userspace TCP stack.

use crate::engine::PacketSink;
use crate::netstack::NetstackDevice;
use crate::tun::{Tun, TunReader, TunWriter};
use std::io;
use tokio::sync::mpsc;

/// The inner side of the mesh, for [`Mesh::start`](crate::Mesh::start).
pub enum Device {
    /// The machine's own network stack.
    Tun(Tun),
    /// A TCP stack inside this process.
    Netstack(NetstackDevice),
}

impl From<Tun> for Device {
    fn from(tun: Tun) -> Self {
        Self::Tun(tun)
    }
}

impl From<NetstackDevice> for Device {
    fn from(device: NetstackDevice) -> Self {
        Self::Netstack(device)
    }
}

impl Device {
    pub(crate) fn split(self) -> (Reader, Writer) {
        match self {
            Self::Tun(tun) => {
                let (reader, writer) = tun.split();
                (Reader::Tun(reader), Writer::Tun(writer))
            }
            Self::Netstack(NetstackDevice {
                from_stack,
                to_stack,
            }) => (
                Reader::Netstack {
                    from_stack,
                    packets: Vec::new(),
                },
                Writer::Netstack(to_stack),
            ),
        }
    }
}

/// Packets taken from the userspace stack at a time.
const NETSTACK_BATCH: usize = 64;

pub(crate) enum Reader {
    Tun(TunReader),
    Netstack {
        from_stack: mpsc::Receiver<Vec<u8>>,
        packets: Vec<Vec<u8>>,
    },
}

impl Reader {
    /// Waits for a batch of packets; false when there will be none any more.
    pub(crate) async fn read(&mut self) -> io::Result<bool> {
        match self {
            Self::Tun(reader) => reader.read().await.map(|()| true),
            Self::Netstack {
                from_stack,
                packets,
            } => {
                packets.clear();
                Ok(from_stack.recv_many(packets, NETSTACK_BATCH).await > 0)
            }
        }
    }

    pub(crate) fn packets(&self) -> Box<dyn Iterator<Item = &[u8]> + '_> {
        match self {
            Self::Tun(reader) => Box::new(reader.packets()),
            Self::Netstack { packets, .. } => Box::new(packets.iter().map(Vec::as_slice)),
        }
    }
}

pub(crate) enum Writer {
    Tun(TunWriter),
    Netstack(mpsc::Sender<Vec<u8>>),
}

impl PacketSink for Writer {
    fn push(&mut self, packet: &[u8]) {
        match self {
            Self::Tun(writer) => writer.push(packet),
            // A full stack drops, as a full router does.
            Self::Netstack(to_stack) => drop(to_stack.try_send(packet.to_vec())),
        }
    }
}

impl Writer {
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tun(writer) => writer.flush().await,
            Self::Netstack(_) => Ok(()),
        }
    }
}
