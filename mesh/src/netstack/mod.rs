//! A TCP stack inside this process (smoltcp), for members without a TUN device: the lighthouse
//! dials nodes' mesh addresses with it, without root.

mod driver;
mod listener;
mod phy;
mod stream;

pub use listener::MeshListener;
pub use stream::MeshStream;

use crate::stop::Bell;
use driver::Shared;
use ipnet::IpNet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Packets between stack and engine, each way.
const CHANNEL: usize = 512;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The TCP stack; clones share it. It lives until the last clone, stream and listener is gone.
#[derive(Clone)]
pub struct Netstack {
    shared: Arc<Shared>,
}

/// The stack's other end, for [`Mesh::start`](crate::Mesh::start).
pub struct NetstackDevice {
    pub(crate) from_stack: mpsc::Receiver<Vec<u8>>,
    pub(crate) to_stack: mpsc::Sender<Vec<u8>>,
    /// Rings when there is something from the stack.
    pub(crate) bell: Arc<Bell>,
}

impl Netstack {
    /// A stack that has `addresses` (one IPv4, one IPv6 at most) and sends packets of at most
    /// `mtu` bytes ([`MTU`](crate::MTU)). Needs a tokio runtime.
    ///
    /// # Errors
    /// When there are more addresses of a family than one, or none at all; when the system has no
    /// descriptor left.
    pub fn new(addresses: &[IpNet], mtu: usize) -> io::Result<(Self, NetstackDevice)> {
        let (to_engine, from_stack) = mpsc::channel(CHANNEL);
        let (to_stack, from_engine) = mpsc::channel(CHANNEL);
        let bell = Arc::new(Bell::new()?);
        let shared = Shared::new(addresses, mtu)?;
        tokio::spawn(driver::run(Arc::downgrade(&shared), from_engine, to_engine));
        Ok((
            Self { shared },
            NetstackDevice {
                from_stack,
                to_stack,
                bell,
            },
        ))
    }

    /// Opens a TCP connection to a peer's mesh address.
    ///
    /// # Errors
    /// Refused, reset, or not answered within 20 s; or no address of that family is ours.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<MeshStream> {
        let mut stream = MeshStream::open(self.shared.clone(), to)?;
        match tokio::time::timeout(CONNECT_TIMEOUT, stream.established()).await {
            Ok(result) => result.map(|()| stream),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{to} did not answer within {CONNECT_TIMEOUT:?}"),
            )),
        }
    }

    /// Listens on `port`, on all addresses of the stack.
    ///
    /// # Errors
    /// Port 0, or a port listened on already.
    pub fn listen(&self, port: u16) -> io::Result<MeshListener> {
        MeshListener::open(self.shared.clone(), port)
    }
}
