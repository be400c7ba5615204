//! Effects through UEFI protocols, kept thin.

pub mod disks;
pub mod image;
pub mod keys;
pub mod machine;
pub mod power;
pub mod random;
mod raw;
pub mod watchdog;

pub use raw::Pages;

/// One line on the console.
macro_rules! say {
    ($($arg:tt)*) => { uefi::println!("holdfast: {}", format_args!($($arg)*)) };
}
pub(crate) use say;
