//! Kinds of machines, and what differs in how QEMU is called for them.

/// What kind of machine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// A PC with UEFI (OVMF).
    #[default]
    Q35,
    /// A 64-bit Arm machine with UEFI (AAVMF).
    Virt,
    /// Raspberry Pi 3 B: 1 GiB, its disk an SD card, a network card on USB. QEMU cannot run the
    /// GPU's firmware; the harness does its part (`raspi`).
    Raspi3b,
    /// Raspberry Pi 4 B: 2 GiB, its disk an SD card, no network at all.
    Raspi4b,
}

impl Platform {
    /// QEMU's program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Q35 => "qemu-system-x86_64",
            _ => "qemu-system-aarch64",
        }
    }

    /// Debian's package with it.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Q35 => "qemu-system-x86",
            _ => "qemu-system-arm",
        }
    }

    /// Whether it is a Raspberry Pi: no UEFI of its own, no PCI in QEMU, an SD card.
    pub(crate) fn is_raspi(self) -> bool {
        matches!(self, Self::Raspi3b | Self::Raspi4b)
    }

    /// Whether the host's processor can run it natively.
    pub(crate) fn runs_natively(self) -> bool {
        match self {
            Self::Q35 => cfg!(target_arch = "x86_64"),
            Self::Virt => cfg!(target_arch = "aarch64"),
            Self::Raspi3b | Self::Raspi4b => false,
        }
    }

    /// `-machine`, and accelerator and processor where KVM does not run it.
    pub(crate) fn words(self) -> [&'static str; 3] {
        match self {
            // LA57 off: a fifth level of page tables only costs time under emulation.
            Self::Q35 => ["q35,smm=off", "tcg,thread=multi", "max,la57=off"],
            Self::Virt => ["virt,gic-version=3", "tcg,thread=multi", "cortex-a72"],
            // With a thread for each processor U-Boot's idle ones spin, and Linux hung.
            Self::Raspi3b => ["raspi3b", "tcg,thread=single", "cortex-a53"],
            Self::Raspi4b => ["raspi4b", "tcg,thread=single", "cortex-a72"],
        }
    }

    /// Memory and processors that the board has, where it leaves no choice.
    pub(crate) fn fixed(self) -> Option<(u32, u32)> {
        match self {
            Self::Raspi3b => Some((1024, 4)),
            Self::Raspi4b => Some((2048, 4)),
            Self::Q35 | Self::Virt => None,
        }
    }
}
