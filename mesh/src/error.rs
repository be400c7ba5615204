//! What can go wrong outside of remote input.

use crate::config::ConfigError;
use crate::keys::MeshKey;
use crate::way::Way;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Failures of the mesh. Remote input causes none of them.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The UDP socket could not be had.
    #[error("cannot listen on UDP {addr}: {source}")]
    Bind {
        /// Address and port asked for.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The TUN device could not be opened.
    #[error(
        "cannot open the TUN device {name}: {source}; it needs /dev/net/tun, CAP_NET_ADMIN, \
             and, if it exists already, flags IFF_TUN, IFF_NO_PI, IFF_VNET_HDR and no other user"
    )]
    Tun {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Reading or writing the device failed for good (it was deleted, for instance).
    #[error("the mesh device failed: {0}")]
    Device(io::Error),
    /// The UDP socket failed for good.
    #[error("the mesh's UDP socket failed: {0}")]
    Socket(io::Error),
    /// A thread of the engine could not be started.
    #[error("the mesh cannot start a thread: {0}")]
    Thread(io::Error),
    /// A part of the engine panicked: a fault of this program.
    #[error("the mesh engine panicked: {0}")]
    Panic(String),
    /// The engine was shut down.
    #[error("the mesh is shut down")]
    Stopped,
    /// A list of peers was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no such peer.
    #[error("{0} is no peer of this machine")]
    UnknownPeer(MeshKey),
    /// No handshake within the time given.
    #[error("no handshake with {key} ({}) within {waited:?}", way.map_or_else(
        || "no address known".to_owned(), |w| w.to_string()))]
    NoHandshake {
        /// The peer.
        key: MeshKey,
        /// Where it was looked for.
        way: Option<Way>,
        /// How long was waited.
        waited: Duration,
    },
}
