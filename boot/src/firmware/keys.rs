//! The cluster's keys in this loader's own file.

use super::raw;
use holdfast_core::loader_keys::{LoaderKeys, LoaderKeysError};

/// Reads them.
///
/// # Errors
/// When no builder has written them.
pub fn read() -> Result<LoaderKeys, LoaderKeysError> {
    LoaderKeys::parse(&raw::key_block())
}
