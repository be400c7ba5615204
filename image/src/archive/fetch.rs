//! Downloads: resumed where they broke off, tried again, checked, several at once.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::{Client, StatusCode, header::RANGE};
use tokio::{io::AsyncWriteExt, sync::Semaphore, task::JoinSet};

use crate::{
    cache::Cache,
    digest::Digest,
    error::{Error, IoContext, Result},
    progress::{Event, Progress},
};

/// Downloads at the same time.
const PARALLEL: usize = 6;
/// Attempts for each file; each goes on where the last one ended.
const ATTEMPTS: u32 = 4;
/// Longest text that is read: nothing is known of it before its signature is checked. Debian's
/// `InRelease` takes 0.2 MB.
const LONGEST_TEXT: usize = 4 << 20;
/// Silence on a connection after which an attempt is given up.
const STALL: Duration = Duration::from_secs(30);

/// One file to be had.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// A URL, or a path below the mirror.
    pub location: String,
    /// What it must be.
    pub sha256: Digest,
    /// Its size where known.
    pub size: Option<u64>,
}

/// Downloads from one mirror, and from full URLs.
pub struct Fetcher {
    mirror: String,
    progress: Arc<dyn Progress>,
}

/// Why one attempt failed.
enum Attempt {
    /// The server does not have it: asking again is pointless.
    Missing,
    /// Worth another try.
    Failed(String),
}

impl Fetcher {
    /// `mirror` without a slash at its end.
    #[must_use]
    pub fn new(mirror: impl Into<String>, progress: Arc<dyn Progress>) -> Self {
        Self {
            mirror: mirror.into(),
            progress,
        }
    }

    /// The full URL of a path below the mirror; a full URL stays what it is.
    #[must_use]
    pub fn url(&self, location: &str) -> String {
        match location.contains("://") {
            true => location.to_owned(),
            false => format!("{}/{}", self.mirror, encode(location)),
        }
    }

    /// Downloads a small text file.
    ///
    /// # Errors
    /// When all attempts failed, or it is too long or not UTF-8.
    pub fn text(&self, location: &str) -> Result<String> {
        let url = self.url(location);
        let failed = |reason: String| Error::Fetch {
            url: url.clone(),
            reason,
        };
        let bytes = on_own_runtime(async {
            let client = client()?;
            let mut last = String::new();
            for attempt in 0..ATTEMPTS {
                pause(attempt).await;
                match short(&client, &url).await {
                    Ok(Some(bytes)) => return Ok(bytes),
                    Ok(None) => {
                        return Err(format!(
                            "it is longer than {LONGEST_TEXT} bytes, which no archive's index is"
                        ));
                    }
                    Err(e) => last = chain(&e),
                }
            }
            Err(last)
        });
        let bytes = bytes.map_err(failed)?;
        String::from_utf8(bytes).map_err(|_| failed("not a text file".into()))
    }

    /// Downloads one file into the cache.
    ///
    /// # Errors
    /// As [`Self::objects`].
    pub fn object(
        &self,
        cache: &Cache,
        location: &str,
        sha256: &Digest,
        size: u64,
    ) -> Result<PathBuf> {
        let wanted = Wanted {
            location: location.to_owned(),
            sha256: *sha256,
            size: Some(size),
        };
        self.objects(cache, &[wanted], "")?;
        Ok(cache.object(sha256))
    }

    /// Downloads what the cache does not have yet.
    ///
    /// # Errors
    /// [`Error::Gone`] (with `recipe` in its advice) when the mirror has dropped a file,
    /// [`Error::Digest`] when bytes are wrong, else [`Error::Fetch`].
    pub fn objects(&self, cache: &Cache, wanted: &[Wanted], recipe: &str) -> Result<()> {
        let missing: Vec<Wanted> = wanted
            .iter()
            .filter(|w| !cache.object(&w.sha256).exists())
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let begun = std::time::Instant::now();
        let total = missing.iter().map(|w| w.size).sum();
        self.progress.event(Event::Start {
            step: "download",
            total,
        });
        let done = on_own_runtime(async {
            let client = client()?;
            let limit = Arc::new(Semaphore::new(PARALLEL));
            let mut tasks = JoinSet::new();
            for wanted in missing {
                let (url, cache, client) =
                    (self.url(&wanted.location), cache.clone(), client.clone());
                let (limit, progress) = (limit.clone(), self.progress.clone());
                let recipe = recipe.to_owned();
                tasks.spawn(async move {
                    let _permit = limit.acquire_owned().await;
                    one(&client, &cache, &url, &wanted, &recipe, &*progress).await
                });
            }
            while let Some(result) = tasks.join_next().await {
                if let Err(e) = result.map_err(|e| e.to_string())? {
                    return Ok(Err(e));
                }
            }
            Ok(Ok(()))
        });
        done.map_err(|reason| Error::Fetch {
            url: self.mirror.clone(),
            reason,
        })??;
        self.progress.event(Event::Done {
            step: "download",
            cached: false,
            took: begun.elapsed(),
        });
        Ok(())
    }
}

/// A text of at most [`LONGEST_TEXT`]; none when it is longer.
async fn short(client: &Client, url: &str) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if text.len() + chunk.len() > LONGEST_TEXT {
            return Ok(None);
        }
        text.extend_from_slice(&chunk);
    }
    Ok(Some(text))
}

async fn one(
    client: &Client,
    cache: &Cache,
    url: &str,
    wanted: &Wanted,
    recipe: &str,
    progress: &dyn Progress,
) -> Result<()> {
    let partial = cache.partial(&wanted.sha256);
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        pause(attempt).await;
        match resume(client, url, &partial, wanted.size, progress).await {
            Ok(()) => {
                let got = crate::digest::of_file(&partial)?;
                if got == wanted.sha256 {
                    cache.adopt(&partial, &got)?;
                    return Ok(());
                }
                // A resumed file may mix two versions: once more, from the start.
                std::fs::remove_file(&partial).at("remove", &partial)?;
                if attempt + 1 == ATTEMPTS {
                    return Err(Error::Digest {
                        what: url.to_owned(),
                        want: wanted.sha256.to_string(),
                        got: got.to_string(),
                    });
                }
                last = format!("its SHA-256 was {got}");
            }
            // Pinned by the recipe itself: no lock holds it, locking anew would change nothing.
            Err(Attempt::Missing) if wanted.location.contains("://") => {
                return Err(Error::Fetch {
                    url: url.to_owned(),
                    reason: format!("the server does not have it: see [k3s] in recipe {recipe}"),
                });
            }
            Err(Attempt::Missing) => {
                return Err(Error::Gone {
                    file: wanted.location.clone(),
                    recipe: recipe.to_owned(),
                });
            }
            Err(Attempt::Failed(reason)) => {
                // Said once: each try mostly fails in the same words, and the last ones are the error's.
                if reason != last && attempt + 1 < ATTEMPTS {
                    progress.event(Event::Note(&format!("{url}: {reason}; trying again")));
                }
                last = reason;
            }
        }
    }
    Err(Error::Fetch {
        url: url.to_owned(),
        reason: last,
    })
}

/// One attempt: asks for what `partial` lacks and appends it.
async fn resume(
    client: &Client,
    url: &str,
    partial: &Path,
    size: Option<u64>,
    progress: &dyn Progress,
) -> Result<(), Attempt> {
    let io = |e: std::io::Error| Attempt::Failed(format!("{}: {e}", partial.display()));
    let mut have = std::fs::metadata(partial).map_or(0, |m| m.len());
    if size.is_some_and(|size| have == size) {
        return Ok(());
    }
    if size.is_some_and(|size| have > size) {
        have = 0;
    }
    let mut request = client.get(url);
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let mut response = request
        .send()
        .await
        .map_err(|e| Attempt::Failed(chain(&e)))?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Attempt::Missing),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            std::fs::remove_file(partial).map_err(io)?;
            return Err(Attempt::Failed(
                "the server has fewer bytes than were already here".into(),
            ));
        }
        // The server ignores ranges: from the start.
        status if status.is_success() => have = 0,
        status => return Err(Attempt::Failed(format!("the server answered {status}"))),
    }
    let mut file = tokio::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(partial)
        .await
        .map_err(io)?;
    file.set_len(have).await.map_err(io)?;
    tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(have))
        .await
        .map_err(io)?;
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|e| Attempt::Failed(chain(&e)))?
    {
        have += chunk.len() as u64;
        if size.is_some_and(|size| have > size) {
            return Err(Attempt::Failed(
                "the server sends more bytes than the index says".into(),
            ));
        }
        file.write_all(&chunk).await.map_err(io)?;
        progress.event(Event::Advance {
            step: "download",
            bytes: chunk.len() as u64,
        });
    }
    file.flush().await.map_err(io)?;
    match size {
        Some(size) if have < size => Err(Attempt::Failed(format!(
            "the connection ended after {have} of {size} bytes"
        ))),
        _ => Ok(()),
    }
}

fn client() -> Result<Client, String> {
    // Whoever was first has set the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(STALL)
        .read_timeout(STALL)
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| chain(&e))
}

/// Doubling pauses before the second and later attempts.
async fn pause(attempt: u32) {
    if attempt > 0 {
        tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
    }
}

/// The whole chain of causes: reqwest's own text stops at "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

/// Package paths hold `+` and `~`, which some servers want encoded.
fn encode(path: &str) -> String {
    path.replace('%', "%25").replace('+', "%2B")
}

/// Runs a future to its end, whether or not the caller is inside a runtime.
fn on_own_runtime<T: Send>(
    future: impl Future<Output = Result<T, String>> + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| format!("the operating system gives no event queue: {e}"))?
                .block_on(future)
        });
        let died = || "the download's thread died".to_owned();
        worker.join().unwrap_or_else(|_| Err(died()))
    })
}

#[cfg(test)]
mod tests;
