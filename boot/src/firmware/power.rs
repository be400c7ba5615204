//! The end of a loader that could start nothing.

use super::say;
use core::time::Duration;
use uefi::runtime::{self, ResetType};
use uefi::{Status, boot};

/// Leaves the explanation on the screen for a while, then starts over: what failed may mend.
pub fn reset_after(seconds: u64) -> ! {
    say!("trying again in {seconds} s");
    boot::stall(Duration::from_secs(seconds));
    runtime::reset(ResetType::COLD, Status::ABORTED, None)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("the loader failed: {info}");
    // The loader never leaves the firmware's boot services, so they are there to wait with.
    boot::stall(Duration::from_secs(30));
    runtime::reset(ResetType::COLD, Status::ABORTED, None)
}
