//! Why a lighthouse does not start, or stops.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LighthouseError {
    /// No `keys.toml` there.
    #[error(
        "{} is no lighthouse's directory (it holds no keys.toml): `holdfast cluster new` makes one as CLUSTER/lighthouse; copy that folder here",
        .0.display()
    )]
    NotADirectory(PathBuf),
    /// A file of the directory.
    #[error("{} {what}: {source}", path.display())]
    File {
        /// What is wrong with it.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's or parser's words.
        source: io::Error,
    },
    /// The documents are not what the roots signed, or do not know this lighthouse.
    #[error("{place}: {reason}; get the cluster's documents.json anew from the operator")]
    Documents {
        /// Which file.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// An address that cannot be listened on.
    #[error(
        "cannot listen on {address} ({protocol}): {source}; {}",
        advice(source)
    )]
    Bind {
        /// Which.
        address: SocketAddr,
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The own certificate.
    #[error(transparent)]
    Tls(#[from] holdfast_tls::IdentityError),
    /// The mesh.
    #[error("mesh: {0}")]
    Mesh(String),
}

impl LighthouseError {
    pub(crate) fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this port: stop it, or choose another port and tell the nodes in the lighthouses document"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE: choose a higher one"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
        _ => "see the lighthouse's addresses in the lighthouses document",
    }
}
