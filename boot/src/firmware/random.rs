//! The boot id: it must differ from every other boot's; it is no secret.

use super::raw;
use holdfast_core::slots::BootId;
use sha2::{Digest as _, Sha256};
use uefi::boot;
use uefi::proto::rng::Rng;
use uefi::runtime;

/// Mixes whatever this machine has: the firmware's generator, the processor's, clock and counter.
pub fn boot_id() -> BootId {
    let mut mix = Sha256::new();
    let mut bytes = [0u8; 32];
    if let Ok(handle) = boot::get_handle_for_protocol::<Rng>()
        && let Ok(mut rng) = raw::open::<Rng>(handle)
        && rng.get_rng(None, &mut bytes).is_ok()
    {
        mix.update(bytes);
    }
    for _ in 0..4 {
        mix.update(raw::processor_random().unwrap_or(0).to_le_bytes());
        mix.update(raw::ticks().to_le_bytes());
    }
    if let Ok(time) = runtime::get_time() {
        let date = [
            u32::from(time.year()),
            time.month().into(),
            time.day().into(),
        ];
        let clock = [
            time.hour().into(),
            time.minute().into(),
            time.second().into(),
            time.nanosecond(),
        ];
        date.iter()
            .chain(&clock)
            .for_each(|n| mix.update(n.to_le_bytes()));
    }
    let mut id = [0; 16];
    id.copy_from_slice(&mix.finalize()[..16]);
    id
}
