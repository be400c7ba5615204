//! Bundles to and from the lighthouse's blob store.

use crate::error::{ClientError, chain};
use crate::transport::{CALL_TIMEOUT, LighthouseClient, accepted};
use bytes::Bytes;
use futures_util::stream;
use holdfast_core::api::ApiErrorKind;
use holdfast_core::keys::Digest;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use reqwest::{Body, Method, StatusCode};
use serde::de::IgnoredAny;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// Times a download that stands still is taken up again.
const RETRIES: u32 = 5;
/// A chunk that takes longer counts as a broken connection.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of the chunks of an upload.
const CHUNK: usize = 256 << 10;

/// A blob on its way.
#[derive(Debug)]
pub struct BlobStream {
    address: String,
    response: reqwest::Response,
    total: u64,
}

impl BlobStream {
    /// Length of the whole blob in bytes, whatever part of it was asked for.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let broken = |reason| ClientError::Broken {
            address: self.address.clone(),
            reason,
        };
        timeout(CHUNK_TIMEOUT, self.response.chunk())
            .await
            .map_err(|_| broken(format!("nothing came for {} s", CHUNK_TIMEOUT.as_secs())))?
            .map_err(|e| broken(chain(&e)))
    }
}

impl LighthouseClient {
    /// The length of a blob that the lighthouse has.
    ///
    /// # Errors
    /// [`ClientError`]; a blob that is not there is none.
    pub async fn blob_len(&self, digest: &Digest) -> Result<Option<u64>, ClientError> {
        // Not HEAD: its answer has no body that could explain a refusal.
        match self.open_blob(digest, 0, Some(1)).await {
            Ok(blob) => Ok(Some(blob.total())),
            Err(error) if Self::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to fetch a blob at byte `from`, up to byte `to` (exclusive) or its end. The caller
    /// checks the digest.
    ///
    /// # Errors
    /// [`ClientError`]; kind `not-found`.
    pub async fn open_blob(
        &self,
        digest: &Digest,
        from: u64,
        to: Option<u64>,
    ) -> Result<BlobStream, ClientError> {
        let path = format!("/v1/blobs/{digest}");
        let range = match to {
            Some(to) => format!("bytes={from}-{}", to.saturating_sub(1).max(from)),
            None => format!("bytes={from}-"),
        };
        let sent = self.send(Method::GET, &path, |r| r.header(RANGE, &range));
        let (address, response) = timeout(CALL_TIMEOUT, sent).await.map_err(|_| {
            let reason = format!("no answer within {} s", CALL_TIMEOUT.as_secs());
            ClientError::Broken {
                address: "the lighthouse".into(),
                reason,
            }
        })??;
        let response = accepted(&address, response).await?;
        let place = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|v| v.to_str().ok());
        let total = match (response.status(), place.and_then(content_range)) {
            (StatusCode::PARTIAL_CONTENT, Some((start, total))) if start == from => Some(total),
            (StatusCode::OK, _) if from == 0 => header_number(&response, CONTENT_LENGTH.as_str()),
            _ => None,
        };
        match total {
            Some(total) => Ok(BlobStream {
                address,
                response,
                total,
            }),
            None => Err(ClientError::Unexpected {
                status: response.status().as_u16(),
                body: format!("asked for {range}, got {place:?}"),
                address,
            }),
        }
    }

    /// Fetches a blob from byte `from` on into `sink`, taking up again what breaks off.
    /// `progress` hears bytes done (from the blob's beginning) and in all. Gives the blob's
    /// length. The caller checks the digest.
    ///
    /// # Errors
    /// [`ClientError`]; when nothing came in several attempts, the last one's.
    pub async fn download_blob(
        &self,
        digest: &Digest,
        from: u64,
        sink: &mut (impl AsyncWrite + Unpin + Send),
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<u64, ClientError> {
        let mut done = from;
        let mut failures = 0;
        loop {
            let before = done;
            let error = match self.copy(digest, &mut done, sink, &mut progress).await {
                Ok(total) => return Ok(total),
                Err(error) if error.may_mend_itself() => error,
                Err(error) => return Err(error),
            };
            failures = if done > before { 1 } else { failures + 1 };
            if failures > RETRIES {
                return Err(error);
            }
            tracing::debug!(%digest, done, %error, "download broke off; taken up again");
            sleep(Duration::from_secs(u64::from(failures))).await;
        }
    }

    async fn copy(
        &self,
        digest: &Digest,
        done: &mut u64,
        sink: &mut (impl AsyncWrite + Unpin + Send),
        progress: &mut (impl FnMut(u64, u64) + Send),
    ) -> Result<u64, ClientError> {
        let local = |source| ClientError::Local {
            what: "writing a download".into(),
            source,
        };
        let mut blob = match self.open_blob(digest, *done, None).await {
            // Everything is there already: no byte left to ask for.
            Err(ClientError::Unexpected { status: 416, .. }) => {
                let total = self.blob_len(digest).await?;
                return total
                    .filter(|t| t == done)
                    .ok_or_else(|| ClientError::Broken {
                        address: "the lighthouse".into(),
                        reason: format!("the blob ends at {total:?}, {done} bytes are here"),
                    });
            }
            other => other?,
        };
        progress(*done, blob.total());
        while let Some(chunk) = blob.chunk().await? {
            sink.write_all(&chunk).await.map_err(local)?;
            *done += chunk.len() as u64;
            progress(*done, blob.total());
        }
        if *done != blob.total() {
            let reason = format!("{done} of {} bytes came", blob.total());
            return Err(ClientError::Broken {
                address: blob.address,
                reason,
            });
        }
        sink.flush().await.map_err(local)?;
        Ok(*done)
    }

    /// Hands over the file at `path` as the blob `digest`, unless the lighthouse has it.
    /// `progress` hears bytes sent and in all. Operators only.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload_blob(
        &self,
        digest: &Digest,
        path: &Path,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<(), ClientError> {
        let local = |source| ClientError::Local {
            what: path.display().to_string(),
            source,
        };
        let total = tokio::fs::metadata(path).await.map_err(local)?.len();
        if self.blob_len(digest).await? == Some(total) {
            progress(total, total);
            return Ok(());
        }
        let file = Arc::new(std::fs::File::open(path).map_err(local)?);
        let progress = Arc::new(progress);
        let target = format!("/v1/blobs/{digest}");
        let sent = self.send(Method::PUT, &target, |request| {
            let body = file_body(file.clone(), total, progress.clone());
            request.header(CONTENT_LENGTH, total).body(body)
        });
        let (address, response) = sent.await?;
        let _ = accepted(&address, response)
            .await?
            .json::<IgnoredAny>()
            .await;
        Ok(())
    }

    /// Whether an error means that a blob is not there.
    #[must_use]
    pub fn is_missing(error: &ClientError) -> bool {
        error.kind() == Some(ApiErrorKind::NotFound)
    }
}

/// The file from its beginning, read anew for every address that is tried.
fn file_body<P>(file: Arc<std::fs::File>, total: u64, progress: Arc<P>) -> Body
where
    P: Fn(u64, u64) + Send + Sync + 'static,
{
    let begin = async move {
        use std::io::Seek as _;
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok::<_, std::io::Error>(tokio::fs::File::from_std(file))
    };
    let state = (Some(begin), None, 0u64, progress);
    Body::wrap_stream(stream::try_unfold(
        state,
        move |(begin, file, sent, progress)| async move {
            let mut file = match (begin, file) {
                (Some(begin), _) => begin.await?,
                (None, Some(file)) => file,
                (None, None) => return Ok(None),
            };
            let mut chunk = Vec::with_capacity(CHUNK);
            let n = (&mut file)
                .take(CHUNK as u64)
                .read_to_end(&mut chunk)
                .await?;
            if n == 0 {
                return Ok::<_, std::io::Error>(None);
            }
            let sent = sent + n as u64;
            progress(sent, total);
            Ok(Some((chunk, (None, Some(file), sent, progress))))
        },
    ))
}

fn header_number(response: &reqwest::Response, name: &str) -> Option<u64> {
    response.headers().get(name)?.to_str().ok()?.parse().ok()
}

/// Start and total of `bytes START-END/TOTAL` (RFC 9110, section 14.4).
fn content_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10)));
        assert_eq!(content_range("bytes 5-9/*"), None);
        assert_eq!(content_range("lines 5-9/10"), None);
    }
}
