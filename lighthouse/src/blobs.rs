//! Bundles: files named by their SHA-256.
//!
//! A blob is written to a file of its own, its digest is checked, the file is flushed and then
//! renamed: under its name it is always whole.

use crate::error::LighthouseError;
use crate::refusal::Refusal;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use holdfast_core::api::ApiErrorKind;
use holdfast_core::keys::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

/// Beginning of the names of unfinished files.
const UNFINISHED: &str = "unfinished-";
/// Bytes read or sent at a time.
const CHUNK: usize = 256 << 10;
/// An upload that stands still this long is given up.
const STALL: Duration = Duration::from_secs(60);

/// The folder of blobs.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    next: AtomicU64,
}

/// An open blob.
#[derive(Debug)]
pub struct Blob {
    file: File,
    /// In bytes.
    pub len: u64,
}

/// Removes an unfinished file when its upload ends without success.
struct Unfinished(Option<PathBuf>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Blobs {
    /// Makes the folder if there is none, and removes what earlier uploads left unfinished.
    ///
    /// # Errors
    /// [`LighthouseError::File`].
    pub fn open(dir: &Path) -> Result<Self, LighthouseError> {
        let failed = |e| LighthouseError::file("cannot be used", dir, e);
        std::fs::create_dir_all(dir).map_err(failed)?;
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            next: AtomicU64::new(0),
        })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn failed(&self, error: &io::Error) -> Refusal {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Refusal::full(format!(
                "the lighthouse's disk is full: remove bundles that no node needs any more from {}",
                self.dir.display()
            )),
            _ => {
                let text = format!("{}: {error}", self.dir.display());
                Refusal::new(ApiErrorKind::Internal, text)
            }
        }
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, digest: &Digest) -> Result<Blob, Refusal> {
        let opened = async {
            let file = File::open(self.path(digest)).await?;
            let len = file.metadata().await?.len();
            Ok(Blob { file, len })
        };
        opened.await.map_err(|e: io::Error| match e.kind() {
            ErrorKind::NotFound => Refusal::new(
                ApiErrorKind::NotFound,
                format!("there is no blob {digest} here; `holdfast upgrade` hands it over"),
            ),
            _ => self.failed(&e),
        })
    }

    /// Stores what `body` brings if its digest is `digest`.
    ///
    /// # Errors
    /// `Malformed` when the digest is another one; `Busy` when the disk is full.
    pub async fn put<E: std::fmt::Display>(
        &self,
        digest: &Digest,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<u64, Refusal> {
        let target = self.path(digest);
        if let Ok(there) = fs::metadata(&target).await {
            return Ok(there.len());
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{UNFINISHED}{n}"));
        let failed = |e: io::Error| self.failed(&e);
        let mut guard = Unfinished(Some(path.clone()));
        let mut file = File::create_new(&path).await.map_err(failed)?;
        let (mut hash, mut len) = (Sha256::new(), 0u64);
        let broke = |why: String| {
            Refusal::new(
                ApiErrorKind::Malformed,
                format!("the upload broke off: {why}"),
            )
        };
        while let Some(chunk) = tokio::time::timeout(STALL, body.next())
            .await
            .map_err(|_| broke(format!("nothing came for {} s", STALL.as_secs())))?
        {
            let chunk = chunk.map_err(|e| broke(e.to_string()))?;
            hash.update(&chunk);
            len += chunk.len() as u64;
            file.write_all(&chunk).await.map_err(failed)?;
        }
        let found = Digest(hash.finalize().into());
        if found != *digest {
            let text = format!("{len} bytes came, with digest {found} instead of {digest}");
            return Err(Refusal::new(ApiErrorKind::Malformed, text));
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        fs::rename(&path, &target).await.map_err(failed)?;
        guard.0 = None;
        let dir = File::open(&self.dir).await.map_err(failed)?;
        dir.sync_all().await.map_err(failed)?;
        tracing::info!(%digest, len, "blob stored");
        Ok(len)
    }
}

impl Blob {
    /// The bytes from `start` up to `end` (exclusive).
    ///
    /// # Errors
    /// Of the file.
    pub async fn read(
        mut self,
        start: u64,
        end: u64,
    ) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
        self.file.seek(SeekFrom::Start(start)).await?;
        let left = end.saturating_sub(start);
        Ok(futures_util::stream::try_unfold(
            (self.file, left),
            |(mut file, left)| async move {
                let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                if want == 0 {
                    return Ok(None);
                }
                let mut chunk = Vec::with_capacity(want);
                let n = (&mut file)
                    .take(want as u64)
                    .read_to_end(&mut chunk)
                    .await?;
                if n == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Ok(Some((Bytes::from(chunk), (file, left - n as u64))))
            },
        ))
    }
}

/// What a `Range` header asks of `len` bytes (RFC 9110, section 14): start and end (exclusive).
/// `Ok(None)`: everything, also for forms that need not be understood; `Err`: nothing of it is
/// there.
///
/// # Errors
/// The range lies outside.
pub fn range(header: Option<&str>, len: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(spec) = header.and_then(|h| h.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Ok(None);
    };
    let parsed = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(a), Ok(b)) if a <= b => (a, b.saturating_add(1).min(len)),
        (Ok(a), Err(_)) if last.is_empty() => (a, len),
        (Err(_), Ok(n)) if first.is_empty() => (len.saturating_sub(n), len),
        _ => return Ok(None),
    };
    if parsed.0 < parsed.1 {
        Ok(Some(parsed))
    } else {
        Err(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn body(parts: &[&'static str]) -> impl Stream<Item = Result<Bytes, String>> + Unpin {
        stream::iter(
            parts
                .iter()
                .map(|p| Ok(Bytes::from(*p)))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn ranges() {
        assert_eq!(range(None, 10), Ok(None));
        assert_eq!(range(Some("bytes=2-4"), 10), Ok(Some((2, 5))));
        assert_eq!(range(Some("bytes=2-"), 10), Ok(Some((2, 10))));
        assert_eq!(range(Some("bytes=-3"), 10), Ok(Some((7, 10))));
        assert_eq!(range(Some("bytes=2-99"), 10), Ok(Some((2, 10))));
        assert_eq!(range(Some("bytes=10-"), 10), Err(()));
        assert_eq!(range(Some("bytes=0-1,3-4"), 10), Ok(None));
        assert_eq!(range(Some("lines=0-1"), 10), Ok(None));
        assert_eq!(range(Some("bytes=0-"), 0), Err(()));
    }

    #[tokio::test]
    async fn only_whole_blobs_with_their_digest_are_kept() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("unfinished-7"), "cut off").unwrap();
        let blobs = Blobs::open(tmp.path()).unwrap();
        let names = || std::fs::read_dir(tmp.path()).unwrap().count();
        assert_eq!(names(), 0);
        let digest = Digest::of(b"hello world");
        let wrong = blobs
            .put(&digest, body(&["hello", " word"]))
            .await
            .unwrap_err();
        assert_eq!(wrong.error.kind, ApiErrorKind::Malformed);
        let cut = stream::iter([Ok(Bytes::from("hello")), Err("reset".to_owned())]);
        assert!(
            blobs
                .put(&digest, cut)
                .await
                .unwrap_err()
                .error
                .message
                .contains("reset")
        );
        assert_eq!(names(), 0);
        assert!(blobs.get(&digest).await.is_err());
        assert_eq!(
            blobs
                .put(&digest, body(&["hello", " world"]))
                .await
                .unwrap(),
            11
        );
        let blob = blobs.get(&digest).await.unwrap();
        let part: Vec<_> = Box::pin(blob.read(6, 11).await.unwrap()).collect().await;
        assert_eq!(part[0].as_ref().unwrap(), "world");
        assert_eq!(names(), 1);
    }
}
