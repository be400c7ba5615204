//! The watchdog of the Raspberry Pi's BCM2835 and its successors: registers PM_WDOG and PM_RSTC of the
//! power management block (no public datasheet; the layout is that of the firmware's and the kernels'
//! open drivers). It counts down from at most 15.99 s.

use core::num::NonZeroU64;

/// Each write carries it, or is ignored.
const PASSWORD: u32 = 0x5a00_0000;
const RSTC: u64 = 0x1c;
const WDOG: u64 = 0x24;
/// 20 bits of 1/65536 s.
const WDOG_MAX: u32 = 0xf_ffff;
const RSTC_CONFIG: u32 = 0x30;
const RSTC_FULL_RESET: u32 = 0x20;

/// The block's address on the board that its device tree's root names; `None` on any other.
pub fn base<'a>(compatible: impl Iterator<Item = &'a str>) -> Option<NonZeroU64> {
    let of = |name| match name {
        "brcm,bcm2837" => Some(0x3f10_0000),
        "brcm,bcm2711" => Some(0xfe10_0000),
        "brcm,bcm2712" => Some(0x10_7d20_0000),
        _ => None,
    };
    compatible
        .into_iter()
        .find_map(of)
        .and_then(NonZeroU64::new)
}

/// 32-bit registers in memory.
pub trait Memory {
    /// Reads one.
    fn read(&mut self, address: u64) -> u32;
    /// Writes one.
    fn write(&mut self, address: u64, value: u32);
}

/// Starts the countdown; the seconds that the hardware took.
pub fn arm(memory: &mut impl Memory, base: NonZeroU64, seconds: u16) -> u16 {
    let base = base.get();
    let ticks = (u32::from(seconds.max(1)) << 16).min(WDOG_MAX);
    memory.write(base + WDOG, PASSWORD | ticks);
    let config = memory.read(base + RSTC) & !RSTC_CONFIG & 0x00ff_ffff;
    memory.write(base + RSTC, PASSWORD | config | RSTC_FULL_RESET);
    seconds.clamp(1, 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    struct Fake(Vec<(u64, u32)>);

    impl Memory for Fake {
        fn read(&mut self, _: u64) -> u32 {
            0x0000_0112
        }
        fn write(&mut self, address: u64, value: u32) {
            self.0.push((address, value));
        }
    }

    #[test]
    fn each_write_has_the_password_and_the_time_its_limit() {
        let base = base(["raspberrypi,3-model-b", "brcm,bcm2837"].into_iter()).unwrap();
        for (asked, took, ticks) in [(10, 10, 10 << 16), (60, 15, WDOG_MAX), (0, 1, 1 << 16)] {
            let mut fake = Fake(vec![]);
            assert_eq!(arm(&mut fake, base, asked), took);
            assert_eq!(
                fake.0,
                [
                    (0x3f10_0024, PASSWORD | ticks),
                    (0x3f10_001c, PASSWORD | 0x122)
                ]
            );
        }
    }

    #[test]
    fn other_boards_have_none() {
        assert!(super::base(["linux,dummy-virt"].into_iter()).is_none());
        assert!(super::base([].into_iter()).is_none());
    }
}
