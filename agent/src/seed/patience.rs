//! Work on volumes that may be damaged or hang: off the event loop, one at a time, bounded in time
//! and in the number of reads.

use anyhow::Context as _;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// One turn for one kind of volume. What hangs keeps its thread: never more than one of the
/// agent's few a kind.
#[derive(Debug, Clone)]
pub struct Turn {
    one: Arc<Semaphore>,
    what: &'static str,
}

impl Turn {
    /// For volumes called `what` in errors.
    pub fn new(what: &'static str) -> Self {
        Self {
            one: Arc::new(Semaphore::new(1)),
            what,
        }
    }

    /// Does `work` off the event loop, one at a time. What takes longer than `limit` may still
    /// come to its end later.
    ///
    /// # Errors
    /// The work's own; when it, or what came before it, does not end within `limit`; its panic.
    pub async fn take<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + limit;
        let permit = timeout_at(end, self.one.clone().acquire_owned())
            .await
            .with_context(|| format!("{} still hangs over earlier work", self.what))??;
        let done = crate::disk::blocking(move || {
            // With the work, not with who waits for it.
            let _permit = permit;
            work()
        });
        timeout_at(end, done)
            .await
            .context("the volume does not answer")?
    }
}

/// Reads and writes that are allowed on one volume: a file of the longest seed takes some hundreds,
/// a report on a full volume some ten thousand.
const OPERATIONS: u32 = 200_000;

/// A volume whose reads and writes are counted: what goes in circles over a damaged one comes to an
/// end.
#[derive(Debug)]
pub struct Counted<T> {
    inner: T,
    left: u32,
}

impl<T> Counted<T> {
    /// With [`OPERATIONS`] left.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            left: OPERATIONS,
        }
    }

    fn count(&mut self) -> io::Result<()> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("the volume is damaged: reading it comes to no end"))?;
        Ok(())
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.count()?;
        self.inner.read(buf)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.count()?;
        self.inner.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Counted<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_thread_at_most_hangs_over_a_volume() {
        let one = Turn::new("it");
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(30));
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let hangs = move || Ok(hang.recv()?);
        let e = one.take(short, hangs).await.unwrap_err();
        assert!(e.to_string().contains("does not answer"), "{e:#}");
        let e = one.take(short, || Ok(())).await;
        assert!(e.unwrap_err().to_string().contains("still hangs"));
        // What overlaps waits for its turn.
        let next = one.clone();
        let waits = tokio::spawn(async move { next.take(long, || Ok(5)).await });
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        assert_eq!(waits.await.unwrap().unwrap(), 5);
        let panics = one.take(long, || -> anyhow::Result<()> { panic!() });
        assert!(panics.await.is_err());
        assert!(one.take(long, || Ok(())).await.is_ok());
    }

    #[test]
    fn reading_in_circles_comes_to_an_end() {
        let mut volume = Counted::new(io::repeat(0));
        let mut block = [0; 16];
        let ended = (0..=OPERATIONS).find_map(|_| volume.read(&mut block).err());
        assert!(ended.unwrap().to_string().contains("no end"));
    }
}
