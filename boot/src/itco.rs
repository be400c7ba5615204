//! The TCO timer of Intel's chipsets (datasheets 316972 for ICH9, 328904 for the 8 series, 337868 for
//! the 300 series; chapters on LPC, SMBus and TCO).
//!
//! A timer of 10 bits counts 0.6 s ticks; when it ends the second time, the chipset resets the
//! machine, unless its NO_REBOOT bit is set. Where timer and bit are depends on the generation:
//!
//! | chipset | timer | NO_REBOOT |
//! |---|---|---|
//! | ICH9 to the 9 series | 60h behind the ACPI base of the LPC bridge | bit 5 of GCS, 3410h behind its RCBA |
//! | 300 series and later | base in the SMBus controller, 00:1f.4 | bit 0 of TCO1_CNT |
//! | 100 and 200 series, server chipsets of their time | the same | in registers that firmware hides (P2SB) |
//! | Atom (Bay Trail, Braswell, Avoton) | as ICH9 | elsewhere |
//!
//! The last two are not armed.

const ID: u8 = 0x00;
const CLASS: u8 = 0x08;
const LPC: Function = (31, 0);
const SMBUS: Function = (31, 4);
const INTEL: u32 = 0x8086;
/// Base and sub class of a SMBus controller and of an ISA bridge (PCI code and id specification).
const CLASS_SMBUS: u32 = 0x0c05;
const CLASS_ISA: u32 = 0x0601;

// LPC bridge, to the 9 series.
const PMBASE: u8 = 0x40;
const ACPI_CNTL: u8 = 0x44;
const ACPI_EN: u32 = 1 << 7;
const RCBA: u8 = 0xf0;
const RCBA_EN: u32 = 1;
const GCS: u64 = 0x3410;
const GCS_NO_REBOOT: u32 = 1 << 5;
// SMBus controller, from the 100 series on.
const TCOBASE: u8 = 0x50;
const TCOCTL: u8 = 0x54;
const TCO_BASE_EN: u32 = 1 << 8;

// Behind the timer's base.
const RLD: u16 = 0x00;
const STS1: u16 = 0x04;
const STS2: u16 = 0x06;
const CNT1: u16 = 0x08;
const TMR: u16 = 0x12;
const CNT1_NO_REBOOT: u16 = 1;
/// Written back as it is read it would raise an interrupt.
const CNT1_NMI_NOW: u16 = 1 << 8;
const CNT1_HALT: u16 = 1 << 11;
const STS1_TIMEOUT: u16 = 1 << 3;
const STS2_SECOND_TIMEOUT: u16 = 1 << 1;
const TICKS_MAX: u32 = 0x3ff;
/// Smaller values are ignored.
const TICKS_MIN: u32 = 4;

/// SMBus controllers whose chipset hides NO_REBOOT: Sunrise Point H and LP, Lewisburg (two), Union
/// Point, Comet Point V, Denverton, Cedar Fork.
const HIDDEN: [u32; 8] = [
    0xa123, 0x9d23, 0xa1a3, 0xa223, 0xa2a3, 0xa3a3, 0x19df, 0x18df,
];
/// LPC bridges of Atom chipsets: Bay Trail, Braswell, Avoton.
const ATOM: [u32; 6] = [0x0f1c, 0x229c, 0x1f38, 0x1f39, 0x1f3a, 0x1f3b];

/// Device and function on bus 0.
pub type Function = (u8, u8);

/// Why the watchdog is not armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// No Intel chipset.
    #[error(
        "this machine has none; where its chipset is AMD's, the kernel's sp5100_tco takes over later"
    )]
    Absent,
    /// The firmware did not give it its registers.
    #[error("the firmware did not switch its registers on")]
    Off,
    /// 100 and 200 series.
    #[error(
        "this chipset's firmware hides the bit that lets it reset; the kernel's driver takes over later"
    )]
    Hidden,
    /// Another kind.
    #[error("this Atom chipset's is of another kind; the kernel's driver takes over later")]
    Atom,
    /// NO_REBOOT stays.
    #[error("this machine's wiring keeps it from resetting")]
    NoReboot,
    /// It did not keep what was written.
    #[error("it does not keep its settings")]
    Deaf,
    /// An access failed.
    #[error("the firmware refused an access to it")]
    Access,
}

/// The chipset's registers.
pub trait Chipset {
    /// Reads 32 bits of configuration space of a function on bus 0.
    fn config32(&mut self, function: Function, reg: u8) -> Result<u32, ArmError>;
    /// Reads a port.
    fn port16(&mut self, port: u16) -> u16;
    /// Writes a port.
    fn set_port16(&mut self, port: u16, value: u16);
    /// Reads 32 bits of memory.
    fn memory32(&mut self, address: u64) -> u32;
    /// Writes 32 bits of memory.
    fn set_memory32(&mut self, address: u64, value: u32);
}

/// Starts the countdown of `seconds`, half of it for each of the two timeouts.
///
/// # Errors
/// [`ArmError`].
pub fn arm(chipset: &mut impl Chipset, seconds: u16) -> Result<(), ArmError> {
    let base = base(chipset)?;
    let control = halt(chipset, base);
    if control & CNT1_HALT == 0 {
        return Err(ArmError::Deaf);
    }
    chipset.set_port16(base + STS1, STS1_TIMEOUT);
    chipset.set_port16(base + STS2, STS2_SECOND_TIMEOUT);
    // 10 ticks are 6 s, and two timeouts share the time.
    let ticks = (u32::from(seconds) * 10 / 12).clamp(TICKS_MIN, TICKS_MAX) as u16;
    let kept = chipset.port16(base + TMR) & !(TICKS_MAX as u16);
    chipset.set_port16(base + TMR, kept | ticks);
    if chipset.port16(base + TMR) & TICKS_MAX as u16 != ticks {
        return Err(ArmError::Deaf);
    }
    chipset.set_port16(base + RLD, 1);
    chipset.set_port16(base + CNT1, control & !CNT1_HALT);
    match chipset.port16(base + CNT1) & CNT1_HALT {
        0 => Ok(()),
        _ => Err(ArmError::Deaf),
    }
}

/// Stops the timer while it is set; its control register afterwards.
fn halt(chipset: &mut impl Chipset, base: u16) -> u16 {
    let control = chipset.port16(base + CNT1) & !CNT1_NMI_NOW;
    chipset.set_port16(base + CNT1, control | CNT1_HALT);
    chipset.port16(base + CNT1) & !CNT1_NMI_NOW
}

/// The timer's base port, once NO_REBOOT is off.
fn base(chipset: &mut impl Chipset) -> Result<u16, ArmError> {
    match intel(chipset, SMBUS, CLASS_SMBUS)? {
        Some(device) if HIDDEN.contains(&device) => Err(ArmError::Hidden),
        Some(_) => {
            if chipset.config32(SMBUS, TCOCTL)? & TCO_BASE_EN == 0 {
                return Err(ArmError::Off);
            }
            let base = (chipset.config32(SMBUS, TCOBASE)? & 0xffe0) as u16;
            let base = Some(base).filter(|b| *b != 0).ok_or(ArmError::Off)?;
            let control = chipset.port16(base + CNT1) & !CNT1_NMI_NOW;
            chipset.set_port16(base + CNT1, control & !CNT1_NO_REBOOT);
            match chipset.port16(base + CNT1) & CNT1_NO_REBOOT {
                0 => Ok(base),
                _ => Err(ArmError::NoReboot),
            }
        }
        None => match intel(chipset, LPC, CLASS_ISA)? {
            Some(device) if ATOM.contains(&device) => Err(ArmError::Atom),
            Some(_) => base_behind_lpc(chipset),
            None => Err(ArmError::Absent),
        },
    }
}

fn base_behind_lpc(chipset: &mut impl Chipset) -> Result<u16, ArmError> {
    let pm = (chipset.config32(LPC, PMBASE)? & 0xff80) as u16;
    let on = chipset.config32(LPC, ACPI_CNTL)? & ACPI_EN != 0;
    let rcba = chipset.config32(LPC, RCBA)?;
    if pm == 0 || !on || rcba & RCBA_EN == 0 {
        return Err(ArmError::Off);
    }
    let gcs = u64::from(rcba & 0xffff_c000) + GCS;
    let value = chipset.memory32(gcs);
    chipset.set_memory32(gcs, value & !GCS_NO_REBOOT);
    match chipset.memory32(gcs) & GCS_NO_REBOOT {
        0 => Ok(pm + 0x60),
        _ => Err(ArmError::NoReboot),
    }
}

/// The device id of Intel's function of this class.
fn intel(
    chipset: &mut impl Chipset,
    function: Function,
    class: u32,
) -> Result<Option<u32>, ArmError> {
    let id = chipset.config32(function, ID)?;
    if id & 0xffff != INTEL || chipset.config32(function, CLASS)? >> 16 != class {
        return Ok(None);
    }
    Ok(Some(id >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec;
    use alloc::vec::Vec;

    #[derive(Default)]
    struct Fake {
        config: BTreeMap<(Function, u8), u32>,
        ports: BTreeMap<u16, u16>,
        memory: BTreeMap<u64, u32>,
        /// Bits of a port that cannot be cleared.
        stuck: BTreeMap<u16, u16>,
        stuck_gcs: bool,
        written: Vec<(u16, u16)>,
    }

    impl Chipset for Fake {
        fn config32(&mut self, function: Function, reg: u8) -> Result<u32, ArmError> {
            Ok(*self.config.get(&(function, reg)).unwrap_or(&0xffff_ffff))
        }
        fn port16(&mut self, port: u16) -> u16 {
            *self.ports.get(&port).unwrap_or(&0) | self.stuck.get(&port).unwrap_or(&0)
        }
        fn set_port16(&mut self, port: u16, value: u16) {
            self.written.push((port, value));
            self.ports.insert(port, value);
        }
        fn memory32(&mut self, address: u64) -> u32 {
            let stuck = if self.stuck_gcs { GCS_NO_REBOOT } else { 0 };
            self.memory[&address] | stuck
        }
        fn set_memory32(&mut self, address: u64, value: u32) {
            self.memory.insert(address, value);
        }
    }

    /// ICH9 as QEMU's q35 has it, its ACPI base where OVMF puts it.
    fn ich9() -> Fake {
        Fake {
            config: BTreeMap::from([
                ((LPC, ID), 0x2918_8086),
                ((LPC, CLASS), 0x0601_0002),
                ((LPC, PMBASE), 0x0601),
                ((LPC, ACPI_CNTL), 0x80),
                ((LPC, RCBA), 0xfed1_c001),
            ]),
            memory: BTreeMap::from([(0xfed1_f410, GCS_NO_REBOOT)]),
            ports: BTreeMap::from([(0x668, CNT1_NMI_NOW), (0x672, 4)]),
            ..Fake::default()
        }
    }

    fn cannon_point() -> Fake {
        Fake {
            config: BTreeMap::from([
                ((SMBUS, ID), 0xa323_8086),
                ((SMBUS, CLASS), 0x0c05_0010),
                ((SMBUS, TCOBASE), 0x0401),
                ((SMBUS, TCOCTL), 0x100),
            ]),
            ports: BTreeMap::from([(0x408, CNT1_NO_REBOOT | CNT1_HALT), (0x412, 0x8004)]),
            ..Fake::default()
        }
    }

    #[test]
    fn arms_both_generations_half_the_time_a_timeout() {
        let mut old = ich9();
        assert_eq!(arm(&mut old, 60), Ok(()));
        assert_eq!(old.memory[&0xfed1_f410], 0);
        assert_eq!((old.ports[&0x672], old.ports[&0x668]), (50, 0));
        // Set while it is halted, reloaded, then let go.
        let halted = (0x668, CNT1_HALT);
        assert_eq!(old.written[0], halted);
        assert_eq!(old.written[3..], vec![(0x672, 50), (0x660, 1), (0x668, 0)]);

        let mut new = cannon_point();
        assert_eq!(arm(&mut new, 60), Ok(()));
        assert_eq!((new.ports[&0x412], new.ports[&0x408]), (0x8000 | 50, 0));
    }

    #[test]
    fn times_keep_to_what_the_timer_counts() {
        for (seconds, ticks) in [(1, TICKS_MIN), (10, 8), (u16::MAX, TICKS_MAX)] {
            let mut fake = ich9();
            arm(&mut fake, seconds).unwrap();
            assert_eq!(u32::from(fake.ports[&0x672]), ticks);
        }
    }

    #[test]
    fn what_cannot_be_armed_is_told_apart() {
        let with = |mut fake: Fake, function, reg, value| {
            fake.config.insert((function, reg), value);
            arm(&mut fake, 60)
        };
        assert_eq!(arm(&mut Fake::default(), 60), Err(ArmError::Absent));
        assert_eq!(with(ich9(), LPC, ID, 0x790e_1022), Err(ArmError::Absent));
        assert_eq!(with(ich9(), LPC, ID, 0x0f1c_8086), Err(ArmError::Atom));
        assert_eq!(with(ich9(), LPC, ACPI_CNTL, 0), Err(ArmError::Off));
        assert_eq!(with(ich9(), LPC, RCBA, 0), Err(ArmError::Off));
        assert_eq!(
            with(cannon_point(), SMBUS, ID, 0xa123_8086),
            Err(ArmError::Hidden)
        );
        assert_eq!(with(cannon_point(), SMBUS, TCOCTL, 0), Err(ArmError::Off));
        let wired = Fake {
            stuck_gcs: true,
            ..ich9()
        };
        assert_eq!(arm(&mut { wired }, 60), Err(ArmError::NoReboot));
        let stuck = |bits| BTreeMap::from([(0x408, bits)]);
        let wired = Fake {
            stuck: stuck(CNT1_NO_REBOOT),
            ..cannon_point()
        };
        assert_eq!(arm(&mut { wired }, 60), Err(ArmError::NoReboot));
        let halted = Fake {
            stuck: stuck(CNT1_HALT),
            ..cannon_point()
        };
        assert_eq!(arm(&mut { halted }, 60), Err(ArmError::Deaf));
    }
}
