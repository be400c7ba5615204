//! The watchdog of the Intel 6300ESB (datasheet 300641, chapter 16), as QEMU and Proxmox offer it.
//!
//! Two timers run one after the other, each counting milliseconds (1 kHz clock): the second one
//! resets the machine. Each register write must be preceded by two magic bytes.

/// Vendor and device id in one word.
pub const ID: u32 = 0x25ab_8086;

const COMMAND: u8 = 0x04;
const BAR0: u8 = 0x10;
const CONFIG: u8 = 0x60;
const LOCK: u8 = 0x68;
const MEMORY_SPACE: u16 = 2;
/// First stage raises no interrupt, second stage resets, 1 kHz.
const CONFIG_RESET: u16 = 0x0003;
const LOCK_ENABLE: u8 = 0x02;
const TIMER1: u64 = 0x00;
const TIMER2: u64 = 0x04;
const RELOAD: u64 = 0x0c;
/// Timers have 20 bits.
const STAGE_MAX_MS: u32 = 0xf_ffff;

/// Why the watchdog is not armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// No such device.
    #[error("this machine has none")]
    Absent,
    /// The device has no memory window.
    #[error("the firmware gave it no memory window")]
    NoWindow,
    /// An access failed.
    #[error("the firmware refused an access to it")]
    Access,
    /// It did not keep what was written.
    #[error("it does not keep its settings")]
    Deaf,
}

/// One device's registers.
pub trait Device {
    /// Reads 8 bits of configuration space.
    fn config8(&mut self, reg: u8) -> Result<u8, ArmError>;
    /// Reads 32 bits of configuration space.
    fn config32(&mut self, reg: u8) -> Result<u32, ArmError>;
    /// Writes 8 bits of configuration space.
    fn set_config8(&mut self, reg: u8, value: u8) -> Result<(), ArmError>;
    /// Writes 16 bits of configuration space.
    fn set_config16(&mut self, reg: u8, value: u16) -> Result<(), ArmError>;
    /// Writes 16 bits of memory.
    fn set_memory16(&mut self, address: u64, value: u16) -> Result<(), ArmError>;
    /// Writes 32 bits of memory.
    fn set_memory32(&mut self, address: u64, value: u32) -> Result<(), ArmError>;
}

/// Starts the countdown of `seconds`: half in each stage, as the kernel's driver has it.
///
/// # Errors
/// [`ArmError`].
pub fn arm(device: &mut impl Device, seconds: u16) -> Result<(), ArmError> {
    let window = u64::from(device.config32(BAR0)? & !0xf);
    if window == 0 {
        return Err(ArmError::NoWindow);
    }
    let command = device.config32(COMMAND)? as u16;
    device.set_config16(COMMAND, command | MEMORY_SPACE)?;
    device.set_config16(CONFIG, CONFIG_RESET)?;
    let stage = (u32::from(seconds) * 500).clamp(1, STAGE_MAX_MS);
    for timer in [TIMER1, TIMER2] {
        unlock(device, window)?;
        device.set_memory32(window + timer, stage)?;
    }
    unlock(device, window)?;
    device.set_memory16(window + RELOAD, 0x0100)?;
    device.set_config8(LOCK, LOCK_ENABLE)?;
    // One byte wide: QEMU answers only that.
    let kept = device.config8(LOCK)? & LOCK_ENABLE != 0;
    if kept { Ok(()) } else { Err(ArmError::Deaf) }
}

fn unlock(device: &mut impl Device, window: u64) -> Result<(), ArmError> {
    device.set_memory16(window + RELOAD, 0x80)?;
    device.set_memory16(window + RELOAD, 0x86)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts unlocks as the device does: a timer takes a value only after the two bytes.
    struct Fake {
        bar: u32,
        lock: u8,
        command: u16,
        config: u16,
        unlocked: u8,
        timers: [u32; 2],
        reloaded: bool,
    }

    impl Fake {
        fn new(bar: u32) -> Self {
            Self {
                bar,
                lock: 0,
                command: 1,
                config: 0,
                unlocked: 0,
                timers: [0; 2],
                reloaded: false,
            }
        }
    }

    impl Device for Fake {
        fn config8(&mut self, reg: u8) -> Result<u8, ArmError> {
            Ok(if reg == LOCK { self.lock } else { 0 })
        }
        fn config32(&mut self, reg: u8) -> Result<u32, ArmError> {
            Ok(match reg {
                COMMAND => self.command.into(),
                BAR0 => self.bar,
                _ => 0,
            })
        }
        fn set_config8(&mut self, reg: u8, value: u8) -> Result<(), ArmError> {
            assert_eq!(reg, LOCK);
            self.lock = value;
            Ok(())
        }
        fn set_config16(&mut self, reg: u8, value: u16) -> Result<(), ArmError> {
            match reg {
                COMMAND => self.command = value,
                CONFIG => self.config = value,
                other => panic!("{other}"),
            }
            Ok(())
        }
        fn set_memory16(&mut self, address: u64, value: u16) -> Result<(), ArmError> {
            assert_eq!(address, u64::from(self.bar) + RELOAD);
            match (self.unlocked, value) {
                (0, 0x80) => self.unlocked = 1,
                (1, 0x86) => self.unlocked = 2,
                (2, 0x100) => (self.reloaded, self.unlocked) = (true, 0),
                other => panic!("{other:?}"),
            }
            Ok(())
        }
        fn set_memory32(&mut self, address: u64, value: u32) -> Result<(), ArmError> {
            assert_eq!(self.unlocked, 2);
            self.unlocked = 0;
            self.timers[((address - u64::from(self.bar)) / 4) as usize] = value;
            Ok(())
        }
    }

    #[test]
    fn arms_both_stages() {
        let mut fake = Fake::new(0xfe00_0000);
        assert_eq!(arm(&mut fake, 60), Ok(()));
        assert_eq!(
            (fake.timers, fake.reloaded, fake.lock),
            ([30_000; 2], true, LOCK_ENABLE)
        );
        assert_eq!((fake.command, fake.config), (3, CONFIG_RESET));
    }

    #[test]
    fn long_timeouts_are_cut_and_a_missing_window_is_said() {
        let mut fake = Fake::new(0xfe00_0000);
        arm(&mut fake, u16::MAX).unwrap();
        assert_eq!(fake.timers, [STAGE_MAX_MS; 2]);
        assert_eq!(arm(&mut Fake::new(0), 60), Err(ArmError::NoWindow));
    }
}
