//! Files sent to a storage: one multipart form each, of a length that is known.

use crate::answers;
use crate::calls;
use crate::client::{Client, ClientError};
use crate::names::{Node, Storage};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::Body;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// An upload is answered when the server has copied it from its temporary place to a task.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
const CHUNK: usize = 256 * 1024;
/// Stands in no image: 128 random bits would do, these are fixed and long.
const BOUNDARY: &str = "holdfast-7f9c2ba4e88f827d616045507605853e-holdfast";

impl Client {
    /// Uploads bytes as a file of the kind `content`, and waits until it is in place.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload_bytes(
        &self,
        node: &Node,
        storage: &Storage,
        content: &str,
        file: &str,
        bytes: Vec<u8>,
    ) -> Result<(), ClientError> {
        let digest = hex(&Sha256::digest(&bytes));
        let len = bytes.len() as u64;
        let body = stream::iter([Ok(Bytes::from(bytes))]);
        self.upload(node, storage, (content, file), &digest, len, body)
            .await
    }

    /// Uploads a file of this machine; `digest` is its SHA-256 in hex, `progress` hears bytes sent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload_file(
        &self,
        node: &Node,
        storage: &Storage,
        (content, file): (&str, &str),
        path: &Path,
        digest: &str,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<(), ClientError> {
        let local = |source| ClientError::Local {
            what: path.display().to_string(),
            source,
        };
        let opened = tokio::fs::File::open(path).await.map_err(local)?;
        let len = opened.metadata().await.map_err(local)?.len();
        // Never more than was announced, should the file grow meanwhile.
        let chunks = stream::try_unfold((opened.take(len), 0_u64), move |(mut from, sent)| {
            progress(sent);
            async move {
                let mut chunk = Vec::with_capacity(CHUNK);
                let n = (&mut from)
                    .take(CHUNK as u64)
                    .read_to_end(&mut chunk)
                    .await?;
                let next = (from, sent + n as u64);
                Ok((n > 0).then(|| (Bytes::from(chunk), next)))
            }
        });
        self.upload(node, storage, (content, file), digest, len, chunks)
            .await
    }

    /// The form in the order and shape that Proxmox's own parser takes: fields, then the file, and a
    /// length; it takes no chunked bodies.
    async fn upload(
        &self,
        node: &Node,
        storage: &Storage,
        (content, file): (&str, &str),
        digest: &str,
        len: u64,
        body: impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let call = calls::upload(node, storage);
        let (head, tail) = form(content, file, digest);
        let total = head.len() as u64 + len + tail.len() as u64;
        let whole = stream::iter([Ok(Bytes::from(head))])
            .chain(body)
            .chain(stream::iter([Ok(Bytes::from(tail))]));
        let sent = self
            .request(&call, false)?
            .timeout(UPLOAD_TIMEOUT)
            .header(
                CONTENT_TYPE,
                format!("multipart/form-data; boundary={BOUNDARY}"),
            )
            .header(CONTENT_LENGTH, total)
            .body(Body::wrap_stream(whole))
            .send()
            .await;
        let data = self.answer(&call, sent).await?;
        match answers::task(&data)? {
            Some(task) => self.wait(&task).await.map(drop),
            None => Ok(()),
        }
    }
}

/// What stands before and behind the file in a multipart form (RFC 7578).
fn form(content: &str, file: &str, digest: &str) -> (String, String) {
    let mut head = String::new();
    for (name, value) in [
        ("content", content),
        ("checksum-algorithm", "sha256"),
        ("checksum", digest),
    ] {
        head += &format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
    }
    head += &format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"{file}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    (head, format!("\r\n--{BOUNDARY}--\r\n"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// It cannot be read.
pub fn file_digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hex(&digest.finalize())),
            n => digest.update(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_ends_with_a_line() {
        let (head, tail) = form("iso", "x.iso", "ab");
        assert!(head.contains("name=\"filename\"; filename=\"x.iso\"\r\n"));
        assert!(head.ends_with("\r\n\r\n") && tail.ends_with("--\r\n"));
    }
}
