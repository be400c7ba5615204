//! Where a bundle comes from, as bytes in order; what breaks off is taken up again.

use crate::backoff::Backoff;
use anyhow::bail;
use holdfast_client::{BlobStream, ClientError, LighthouseClient};
use holdfast_core::keys::Digest;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Attempts without [`LEAST`] bytes before giving up.
const ATTEMPTS: u32 = 8;
const CHUNK_PATIENCE: Duration = Duration::from_secs(30);
/// So many bytes must come in so much time of waiting: a server that drips must not hold the
/// slots for ever.
const LEAST: (u64, Duration) = (64 * 1024, Duration::from_secs(60));

/// A bundle's place.
pub enum Place {
    /// A lighthouse's blob store: the operator brought it to one of them.
    Blob(Vec<Arc<LighthouseClient>>, Digest),
    /// Any web server.
    Web(Client, String),
}

impl Place {
    /// From what the operator named: `blob:` or an HTTPS address.
    ///
    /// # Errors
    /// Any other address.
    pub fn new(
        url: &str,
        digest: Digest,
        lighthouses: Vec<Arc<LighthouseClient>>,
    ) -> anyhow::Result<Self> {
        if url == "blob:"
            || url
                .strip_prefix("blob:")
                .is_some_and(|d| d == digest.to_string())
        {
            if lighthouses.is_empty() {
                bail!("no lighthouse answers, so its blob store cannot be used");
            }
            return Ok(Self::Blob(lighthouses, digest));
        }
        if !url.starts_with("https://") {
            bail!("{url:?} is neither blob: nor an https:// address");
        }
        // What comes is held against a signature and the operator's digest, so that the server's
        // certificate (and the node's clock and list of authorities) need not be trusted.
        let client = Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .connect_timeout(Duration::from_secs(15))
            .build()?;
        Ok(Self::Web(client, url.into()))
    }

    async fn open(&self, from: u64) -> Result<Body, Failure> {
        match self {
            Self::Blob(lighthouses, digest) => {
                let mut failure = Failure::Final("no lighthouse answers".into());
                for client in lighthouses {
                    match client.open_blob(digest, from, None).await {
                        Ok(blob) => return Ok(Body::Blob(blob)),
                        Err(e) if e.may_mend_itself() => failure = Failure::Passing(e.to_string()),
                        // What another may mend is worth another attempt.
                        Err(e) if matches!(failure, Failure::Final(_)) => {
                            failure = Failure::Final(e.to_string());
                        }
                        Err(_) => {}
                    }
                }
                Err(failure)
            }
            Self::Web(client, url) => {
                let asked = client
                    .get(url)
                    .header(RANGE, format!("bytes={from}-"))
                    .send();
                let response = match tokio::time::timeout(CHUNK_PATIENCE, asked).await {
                    Ok(response) => response.map_err(|e| Failure::Passing(e.to_string()))?,
                    Err(_) => return Err(Failure::Passing(format!("{url}: no answer"))),
                };
                let starts = response.headers().get(CONTENT_RANGE).and_then(|v| {
                    v.to_str()
                        .ok()?
                        .strip_prefix("bytes ")?
                        .split('-')
                        .next()?
                        .parse()
                        .ok()
                });
                match response.status() {
                    StatusCode::PARTIAL_CONTENT if starts == Some(from) => Ok(Body::Web(response)),
                    StatusCode::OK if from == 0 => Ok(Body::Web(response)),
                    s if s.is_server_error() => Err(Failure::Passing(format!("{url}: {s}"))),
                    StatusCode::OK | StatusCode::PARTIAL_CONTENT => Err(Failure::Final(format!(
                        "{url}: the server does not serve ranges"
                    ))),
                    s => Err(Failure::Final(format!("{url}: {s}"))),
                }
            }
        }
    }
}

enum Failure {
    /// Worth another attempt.
    Passing(String),
    /// Not.
    Final(String),
}

enum Body {
    Blob(BlobStream),
    Web(Response),
}

impl Body {
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Blob(blob) => blob
                .chunk()
                .await
                .map(|c| c.map(Vec::from))
                .map_err(|e: ClientError| e.to_string()),
            Self::Web(response) => {
                match tokio::time::timeout(CHUNK_PATIENCE, response.chunk()).await {
                    Ok(chunk) => chunk.map(|c| c.map(Vec::from)).map_err(|e| e.to_string()),
                    Err(_) => Err("nothing came for a while".into()),
                }
            }
        }
    }
}

/// How much comes while we wait for it.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    came: u64,
}

/// What a piece of the bundle means for its pace.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Too early to say.
    Open,
    /// Enough came: counting begins anew.
    Good,
    /// Too little came.
    Slow,
}

impl Pace {
    /// `came` bytes after waiting for `waited`.
    fn step(&mut self, waited: Duration, came: u64) -> Step {
        self.waited += waited;
        self.came += came;
        if self.came >= LEAST.0 {
            *self = Self::default();
            Step::Good
        } else if self.waited >= LEAST.1 {
            *self = Self::default();
            Step::Slow
        } else {
            Step::Open
        }
    }
}

/// A bundle's bytes.
pub struct Source {
    place: Place,
    at: u64,
    len: u64,
    body: Option<Body>,
    failures: u32,
    pauses: Backoff,
    pace: Pace,
}

impl Source {
    /// `len` bytes from `place`.
    pub fn new(place: Place, len: u64) -> Self {
        Self {
            place,
            at: 0,
            len,
            body: None,
            failures: 0,
            pauses: Backoff::secs(1, 30),
            pace: Pace::default(),
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When nothing comes in several attempts, or the server says no.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        while self.at < self.len {
            let why = match self.step().await {
                Ok(Some(chunk)) => return Ok(Some(chunk)),
                Ok(None) => format!("it ends after {} of {} bytes", self.at, self.len),
                Err(Failure::Final(why)) => bail!(why),
                Err(Failure::Passing(why)) => why,
            };
            self.body = None;
            self.failures += 1;
            if self.failures >= ATTEMPTS {
                bail!("the bundle cannot be fetched: {why}");
            }
            tracing::info!(at = self.at, "fetching broke off, taken up again: {why}");
            tokio::time::sleep(self.pauses.pause()).await;
        }
        Ok(None)
    }

    async fn step(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let body = match &mut self.body {
            Some(body) => body,
            None => self.body.insert(self.place.open(self.at).await?),
        };
        let since = Instant::now();
        let Some(mut chunk) = body.chunk().await.map_err(Failure::Passing)? else {
            return Ok(None);
        };
        let room = self.len - self.at;
        chunk.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        self.at += chunk.len() as u64;
        match self.pace.step(since.elapsed(), chunk.len() as u64) {
            Step::Open => {}
            Step::Good => {
                self.failures = 0;
                self.pauses.reset();
            }
            Step::Slow => self.too_slow()?,
        }
        Ok(Some(chunk))
    }

    /// What came counts; the connection does not.
    fn too_slow(&mut self) -> Result<(), Failure> {
        self.body = None;
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            return Err(Failure::Final(format!(
                "the bundle comes too slowly: less than {} bytes in {} s, {ATTEMPTS} times",
                LEAST.0,
                LEAST.1.as_secs()
            )));
        }
        tracing::info!(at = self.at, "fetching is too slow, taken up again");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dripping_is_slow_and_a_thin_line_is_not() {
        let mut pace = Pace::default();
        let drip = Duration::from_secs(29);
        assert_eq!(pace.step(drip, 1), Step::Open);
        assert_eq!(pace.step(drip, 1), Step::Open);
        assert_eq!(pace.step(drip, 1), Step::Slow);
        for _ in 0..7 {
            assert_eq!(pace.step(Duration::from_secs(4), 8 * 1024), Step::Open);
        }
        assert_eq!(pace.step(Duration::from_secs(4), 8 * 1024), Step::Good);
        assert_eq!(pace.step(LEAST.1, LEAST.0), Step::Good);
    }

    #[tokio::test]
    async fn a_server_that_drips_is_given_up() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut source = Source::new(
            Place::Web(Client::new(), "https://a.invalid/".into()),
            1 << 30,
        );
        for n in 1..=ATTEMPTS {
            assert_eq!(source.failures, n - 1);
            source.too_slow().map_or_else(
                |e| assert!(n == ATTEMPTS && matches!(e, Failure::Final(_))),
                |()| assert!(n < ATTEMPTS),
            );
        }
    }
}
