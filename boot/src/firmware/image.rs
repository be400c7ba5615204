//! Starting a UKI from memory.

use super::raw;
use uefi::boot::{self, LoadImageSource};
use uefi::{Handle, Result};

/// A UKI that the firmware has taken over.
pub struct Image(Handle);

/// Hands a UKI to the firmware, which copies it.
///
/// # Errors
/// The firmware's; with Secure Boot on it refuses here.
pub fn load(uki: &[u8]) -> Result<Image> {
    let source = LoadImageSource::FromBuffer {
        buffer: uki,
        file_path: None,
    };
    boot::load_image(boot::image_handle(), source).map(Image)
}

/// Starts it; only a UKI that fails comes back.
pub fn start(image: Image, options: &[u16]) -> Result<()> {
    let result = raw::set_options(image.0, options).and_then(|()| boot::start_image(image.0));
    let _ = boot::unload_image(image.0);
    result
}
