//! What carries the inner packets: a TUN device, or the userspace TCP stack.

use crate::batch::Batch;
use crate::engine::PacketSink;
use crate::netstack::NetstackDevice;
use crate::stop::{Bell, Stop};
use crate::tun::{SpareTun, Tun, TunReader, TunWriter};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
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
                bell,
            }) => (
                Reader::Netstack(StackReader {
                    from_stack,
                    waker: bell.clone().into(),
                    bell,
                }),
                Writer::Netstack(StackWriter::new(to_stack)),
            ),
        }
    }
}

pub(crate) enum Reader {
    Tun(TunReader),
    Netstack(StackReader),
}

pub(crate) struct StackReader {
    from_stack: mpsc::Receiver<Vec<u8>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl StackReader {
    /// Takes what is there, up to a batch; false when there will be nothing any more.
    fn take(&mut self, batch: &mut Batch) -> bool {
        let mut context = Context::from_waker(&self.waker);
        // The bell rings for what comes after this look, and not for what came before.
        self.bell.silence();
        while !batch.full() {
            match self.from_stack.poll_recv(&mut context) {
                Poll::Ready(Some(packet)) if batch.push(&packet) => {}
                Poll::Ready(Some(packet)) => {
                    tracing::debug!("a packet of {} bytes is none", packet.len());
                }
                Poll::Ready(None) => return !batch.is_empty(),
                Poll::Pending => break,
            }
        }
        true
    }
}

impl Reader {
    /// Takes the packets that are there into `batch`, which is empty before; false when there
    /// will be none any more.
    pub(crate) fn take(&mut self, batch: &mut Batch) -> io::Result<bool> {
        match self {
            Self::Tun(reader) => reader.read(batch).map(|()| true),
            Self::Netstack(reader) => Ok(reader.take(batch)),
        }
    }

    /// Readable when there is something.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(reader) => reader.fd(),
            Self::Netstack(reader) => reader.bell.fd(),
        }
    }
}

/// Makes writers for those who come later, as long as the device is there.
#[derive(Clone)]
pub(crate) enum Spare {
    Tun(SpareTun),
    Netstack(mpsc::WeakSender<Vec<u8>>),
}

impl Spare {
    /// None once the device was given back.
    pub(crate) fn writer(&self) -> Option<Writer> {
        Some(match self {
            Self::Tun(tun) => Writer::Tun(tun.writer()?),
            Self::Netstack(to_stack) => Writer::Netstack(StackWriter::new(to_stack.upgrade()?)),
        })
    }
}

pub(crate) enum Writer {
    Tun(TunWriter),
    Netstack(StackWriter),
}

pub(crate) struct StackWriter {
    to_stack: mpsc::Sender<Vec<u8>>,
    room: Vec<u8>,
}

impl StackWriter {
    fn new(to_stack: mpsc::Sender<Vec<u8>>) -> Self {
        Self {
            to_stack,
            room: vec![],
        }
    }
}

impl PacketSink for Writer {
    fn room(&mut self, len: usize) -> &mut [u8] {
        match self {
            Self::Tun(writer) => writer.merger().room(len),
            Self::Netstack(stack) => {
                if stack.room.len() < len {
                    stack.room.resize(len, 0);
                }
                &mut stack.room[..len]
            }
        }
    }

    fn held(&mut self, len: usize) -> &mut [u8] {
        match self {
            Self::Tun(writer) => writer.merger().held(len),
            Self::Netstack(stack) => &mut stack.room[..len],
        }
    }

    fn take(&mut self, len: usize) {
        match self {
            Self::Tun(writer) => writer.merger().take(len),
            // A full stack drops, as a full router does.
            Self::Netstack(stack) => drop(stack.to_stack.try_send(stack.room[..len].to_vec())),
        }
    }
}

impl Writer {
    pub(crate) fn spare(&self) -> Spare {
        match self {
            Self::Tun(writer) => Spare::Tun(writer.spare()),
            Self::Netstack(stack) => Spare::Netstack(stack.to_stack.downgrade()),
        }
    }

    pub(crate) fn flush(&mut self, stop: &Stop) -> io::Result<()> {
        match self {
            Self::Tun(writer) => writer.flush(stop),
            Self::Netstack(_) => Ok(()),
        }
    }
}
