//! What the loader needs of the machine that it runs on.

use core::fmt::{Arguments, Debug, Display};
use core::ops::DerefMut;
use holdfast_core::gpt::Geometry;
use holdfast_core::header::Watchdog;

/// A machine with one disk.
pub trait Machine {
    /// Memory for what is read and decoded.
    type Memory: DerefMut<Target = [u8]>;
    /// A kernel that it has taken over.
    type Image;
    /// Why something was not done.
    type Fault: Debug + Display;

    /// The disk's measures.
    fn geometry(&self) -> Geometry;

    /// What to call the disk on the console.
    fn disk_name(&self) -> &str;

    /// One line on the console.
    fn say(&self, line: Arguments<'_>);

    /// Memory of `len` bytes.
    ///
    /// # Errors
    /// When there is not that much.
    fn memory(&mut self, len: usize) -> Result<Self::Memory, Self::Fault>;

    /// Reads `len` bytes from block `lba` on.
    ///
    /// # Errors
    /// The disk's.
    fn read(&mut self, lba: u64, len: usize) -> Result<Self::Memory, Self::Fault>;

    /// Writes whole blocks and waits until they are on the medium.
    ///
    /// # Errors
    /// The disk's, or a length that is not whole blocks.
    fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<(), Self::Fault>;

    /// Takes a UKI over; what it was made of may go afterwards.
    ///
    /// # Errors
    /// A refusal, as with Secure Boot.
    fn load(&mut self, uki: &[u8]) -> Result<Self::Image, Self::Fault>;

    /// Arms the hardware watchdog, and says so. Which one is armed.
    fn arm(&mut self, watchdog: Watchdog, seconds: u16) -> Option<Watchdog>;

    /// Starts what was loaded, with these load options; comes back only when it failed, with why.
    fn start(&mut self, image: Self::Image, options: &[u16]) -> Self::Fault;
}
