//! What a medium has to be able to do.

use std::io;

/// A medium. Offsets and lengths are in bytes, multiples of its sectors; buffers lie at whole
/// pages.
pub trait Target: Sync {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the operating system says.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes a stretch read as zeros.
    ///
    /// # Errors
    /// What the operating system says.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Tells it that nobody needs a stretch any more.
    ///
    /// # Errors
    /// When it cannot be told.
    fn forget(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Waits until everything is on the medium.
    ///
    /// # Errors
    /// What the operating system says.
    fn flush(&self) -> io::Result<()>;

    /// Makes the next reads come from the medium, as far as that can be done.
    fn drop_cache(&self);

    /// Fills `buffer`.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Whether it is still plugged in.
    fn is_there(&self) -> bool;
}
