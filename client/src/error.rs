//! What can go wrong between here and the lighthouse.

use holdfast_core::api::{ApiError, ApiErrorKind};
use holdfast_core::keys::PublicKey;
use holdfast_tls::{IdentityError, PinMismatch};
use std::fmt::Write as _;

/// One address that did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port`.
    pub address: String,
    /// What happened, in words.
    pub reason: String,
}

/// Why a call gave no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address was given.
    #[error("no address of the lighthouse is known")]
    NoAddress,
    /// The own key or the configuration was refused.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made: {0}")]
    Setup(String),
    /// No address answered.
    #[error("the lighthouse did not answer: {}", attempts(.0))]
    Unreachable(Vec<Attempt>),
    /// Something answered that has another key than the pinned one.
    #[error("{address} is not the lighthouse that was pinned: {mismatch}")]
    WrongKey {
        /// `host:port`.
        address: String,
        /// The pinned key.
        expected: PublicKey,
        /// What came instead.
        mismatch: Box<PinMismatch>,
    },
    /// The lighthouse said no.
    #[error("the lighthouse said: {}", .0.message)]
    Api(ApiError),
    /// An answer that no lighthouse gives.
    #[error("{address} answered {status} without an explanation: {body:?}")]
    Unexpected {
        /// `host:port`.
        address: String,
        /// HTTP status.
        status: u16,
        /// Its beginning.
        body: String,
    },
    /// The connection broke after the request was sent: the call may have had its effect.
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        /// `host:port`.
        address: String,
        /// What happened, in words.
        reason: String,
    },
    /// A local file or sink.
    #[error("{what}: {source}")]
    Local {
        /// Which.
        what: String,
        /// The system's words.
        source: std::io::Error,
    },
}

impl ClientError {
    /// The lighthouse's word for programs, if it was it who said no.
    #[must_use]
    pub fn kind(&self) -> Option<ApiErrorKind> {
        match self {
            ClientError::Api(e) => Some(e.kind),
            _ => None,
        }
    }

    /// What the lighthouse holds, where it said that something is older.
    #[must_use]
    pub fn held(&self) -> Option<u64> {
        match self {
            ClientError::Api(e) => e.held,
            _ => None,
        }
    }

    /// Whether the same call may well succeed later without anybody changing anything.
    #[must_use]
    pub fn may_mend_itself(&self) -> bool {
        match self {
            ClientError::Unreachable(_)
            | ClientError::Broken { .. }
            | ClientError::Unexpected { .. } => true,
            ClientError::Api(e) => matches!(
                e.kind,
                ApiErrorKind::Busy | ApiErrorKind::Internal | ApiErrorKind::Unreachable
            ),
            _ => false,
        }
    }
}

fn attempts(all: &[Attempt]) -> String {
    let mut text = String::new();
    for (i, a) in all.iter().enumerate() {
        let _ = write!(
            text,
            "{}{}: {}",
            if i == 0 { "" } else { "; " },
            a.address,
            a.reason
        );
    }
    text
}

/// An error and its causes in one line, without repeating what a cause says already.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        next = cause.source();
    }
    text
}
