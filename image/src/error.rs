//! What can go wrong in a build, with the offending value and the way out.

use std::{io, path::Path};

/// An error of the builder. Its text says what happened, where, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused something.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, in the infinitive ("read", "write").
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A recipe, board or lock file says something that cannot be used.
    #[error(transparent)]
    Definition(#[from] crate::definition::DefinitionError),
    /// No package mirror was given and the host's apt configuration names none.
    #[error(
        "no package mirror: give --mirror URL, set HOLDFAST_MIRROR, or build on a machine whose apt \
         configuration names a Debian mirror"
    )]
    NoMirror,
    /// A download failed for good.
    #[error("cannot download {url}: {reason}")]
    Fetch {
        /// What was asked for.
        url: String,
        /// The last attempt's failure.
        reason: String,
    },
    /// The mirror no longer has a file that the lock names.
    #[error(
        "the mirror no longer has {file}: a newer package has replaced it. \
         `holdfast lock {recipe}` locks anew (or build with --relock when-gone)"
    )]
    Gone {
        /// Path below the mirror.
        file: String,
        /// The recipe whose lock names it.
        recipe: String,
    },
    /// There is no lock file, or it was made from other inputs.
    #[error("{path}: {reason}; `holdfast lock {recipe}` writes it")]
    Lock {
        /// The lock file.
        path: String,
        /// What is wrong with it.
        reason: String,
        /// The recipe's name.
        recipe: String,
    },
    /// Bytes are not the ones that were promised.
    #[error("{what} has SHA-256 {got}, expected {want}: it was damaged or replaced on the way")]
    Digest {
        /// The file or URL.
        what: String,
        /// Expected digest, hex.
        want: String,
        /// Digest found, hex.
        got: String,
    },
    /// The archive's index is not signed by a key that is trusted.
    #[error("{what} is not signed by the archive: {reason}")]
    Signature {
        /// The file.
        what: String,
        /// Why no signature counts.
        reason: String,
    },
    /// The archive's index cannot be used.
    #[error("package index {what}: {reason}")]
    Index {
        /// The file.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Dependencies that cannot be met.
    #[error("package {package}: {reason}")]
    Package {
        /// The package's name.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// A part of the image cannot be made.
    #[error("{what}: {reason}")]
    Build {
        /// Which part.
        what: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// The builder's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn build(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Build {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    /// Says for which architecture a package was looked for.
    pub(crate) fn on(self, arch: &str) -> Self {
        match self {
            Self::Package { package, reason } => Self::Package {
                package,
                reason: format!("{reason} (architecture {arch})"),
            },
            other => other,
        }
    }
}

/// Adds the action and the path to an IO error.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.as_ref().display().to_string(),
            source,
        })
    }
}
