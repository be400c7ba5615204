//! Holdfast's mesh: WireGuard in userspace (boringtun), with a TUN device or a userspace TCP
//! stack on the inner side and one UDP socket on the outer.
//!
//! A node:
//!
//! ```no_run
//! # async fn node(peers: Vec<holdfast_mesh::PeerConfig>) -> Result<(), Box<dyn std::error::Error>> {
//! use holdfast_mesh::{Mesh, MeshPrivateKey, MeshSocket, Tun};
//! let key = MeshPrivateKey::generate()?;
//! let socket = MeshSocket::bind(0)?; // keep socket.port() and bind it again the next time
//! let mesh = Mesh::start(Tun::open("hf0")?, socket, &key);
//! mesh.set_peers(&peers)?; // handshakes start at once
//! mesh.wait_handshake(peers[0].public_key, std::time::Duration::from_secs(10)).await?;
//! # Ok(()) }
//! ```
//!
//! The lighthouse, without root:
//!
//! ```no_run
//! # async fn lighthouse(key: holdfast_mesh::MeshPrivateKey, node: std::net::SocketAddr)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use holdfast_mesh::{MTU, Mesh, MeshSocket, Netstack};
//! let (stack, device) = Netstack::new(&["100.64.0.1/32".parse()?], MTU)?;
//! let mesh = Mesh::start(device, MeshSocket::bind(51820)?, &key);
//! // after mesh.set_peers(...):
//! let stream = stack.connect(node).await?; // AsyncRead + AsyncWrite
//! # Ok(()) }
//! ```
//!
//! What the caller owns: the TUN's address, routes, MTU and link state; the clock (set it before
//! [`Mesh::start`]); keeping key and port. What this crate guards against: see
//! `docs/design.md`, "Mesh". boringtun logs each lost peer as an error under the target
//! `boringtun`: filter that to `off`, [`MeshHandle::status`] tells the same.
//!
//! Inside: `packet`, `way`, `probe`, `vnet`, `checksum`, `mss` and `split` look at bytes, `config`, `paths`,
//! `retry`, `routes`, `filter`, `limiter`, `pending`, `relay`, `clients`, `batch`, `outbox` and `merge` decide, `peer`,
//! `crypto` and `engine` hold state, `socket`, `fragment`, `stream`, `tun`, `gso_size` and `netstack` do the IO, `pump` moves
//! batches through all of that, `stop` and `threads` end it, `mesh` starts it.

mod batch;
mod checksum;
mod clients;
mod config;
mod crypto;
mod device;
mod engine;
mod error;
mod filter;
mod fragment;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gso_size;
mod here;
pub mod keys;
mod limiter;
mod merge;
mod mesh;
mod mss;
mod netstack;
mod outbox;
mod packet;
mod parts;
mod paths;
mod peer;
mod pending;
mod probe;
mod pump;
mod relay;
mod retry;
mod routes;
mod socket;
mod split;
mod stop;
mod stream;
mod threads;
mod tun;
mod vnet;
mod way;

pub use config::{ConfigError, PeerChange, PeerConfig, PeerUpdate};
pub use device::Device;
pub use error::MeshError;
pub use filter::{Filter, Rules};
pub use keys::{MeshKey, MeshPrivateKey};
pub use mesh::{Mesh, MeshHandle, PeerStatus};
pub use netstack::{MeshListener, MeshStream, Netstack, NetstackDevice};
pub use socket::MeshSocket;
pub use tun::Tun;
pub use way::{Channel, Way};

/// The MTU inside the mesh: leaves room for IPv6, a relay's header and PPPoE.
pub const MTU: usize = 1380;
