//! Frames of the control protocol: a 4-byte big-endian length, then JSON.

use holdfast_core::control::MAX_FRAME;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Why a frame was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream.
    #[error(transparent)]
    Stream(#[from] std::io::Error),
    /// Longer than any frame.
    #[error("a frame of {0} bytes; at most {MAX_FRAME} are allowed")]
    TooLong(u64),
    /// Not the JSON of its kind.
    #[error("{0}")]
    Content(#[from] serde_json::Error),
}

/// A stream in frames.
pub struct Frames<S> {
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    /// The next frame.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn read<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        let len = self.stream.read_u32().await?;
        if len > MAX_FRAME {
            return Err(FrameError::TooLong(len.into()));
        }
        let mut bytes = vec![0; len as usize];
        self.stream.read_exact(&mut bytes).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes a frame and flushes it.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn write<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        let json = serde_json::to_vec(value)?;
        let len = u32::try_from(json.len()).ok().filter(|l| *l <= MAX_FRAME);
        let len = len.ok_or(FrameError::TooLong(json.len() as u64))?;
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.extend_from_slice(&json);
        self.stream.write_all(&bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The raw stream, after the last frame.
    pub fn raw(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Ends the stream in order.
    ///
    /// # Errors
    /// As the stream says.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        Ok(self.stream.shutdown().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::control::Request;

    #[tokio::test]
    async fn frames_come_back_and_long_ones_are_refused_before_they_are_read() {
        let (a, b) = tokio::io::duplex(1 << 16);
        let (mut a, mut b) = (Frames::new(a), Frames::new(b));
        a.write(&Request::Status).await.unwrap();
        assert_eq!(b.read::<Request>().await.unwrap(), Request::Status);
        a.raw().write_all(&[0xff; 4]).await.unwrap();
        assert!(matches!(
            b.read::<Request>().await,
            Err(FrameError::TooLong(_))
        ));
        let long = "x".repeat(MAX_FRAME as usize + 1);
        assert!(matches!(a.write(&long).await, Err(FrameError::TooLong(_))));
    }
}
