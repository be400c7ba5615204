//! TLS 1.3 between Ed25519 keys that both ends know beforehand.
//!
//! A certificate is only a carrier for a key here: names, dates and issuers are ignored, so that
//! a machine whose clock stands at 1970 can still join. There is no session resumption and no
//! early data, so the server random of every handshake is a challenge that is used once.
//!
//! Servers that are not ours (Proxmox) are pinned by their whole certificate: [`certificate_config`].

mod config;
mod fingerprint;
mod identity;
mod pin;
mod stream;

pub use config::{ClientAuth, certificate_config, client_config, server_config};
pub use fingerprint::{BadFingerprint, Fingerprint};
pub use identity::{Identity, IdentityError};
pub use pin::{PinMismatch, peer_key, pin_mismatch, spki_key};
pub use stream::{ClientStream, HANDSHAKE_TIMEOUT, ServerStream, accept, connect};

/// What goes on the wire is rustls's; re-exported so that users need not name its version.
pub use rustls::{ClientConfig, ServerConfig};
