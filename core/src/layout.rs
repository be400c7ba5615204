//! The disk of a node: which partitions, in which order, how large, and what lies where in them.
//!
//! Frozen at the first release: nodes in the field are never repartitioned, only `hf-var` grows.
//!
//! | partition | size | holds |
//! |---|---|---|
//! | `esp` | 64 MiB | FAT: the loader, what a firmware needs before it |
//! | `hf-slots` | 2 MiB | slot record at 0 and 1 MiB, release list at 512 KiB and 1536 KiB |
//! | `hf-state` | 32 MiB | what the node knows about itself, two copies |
//! | `hf-seed` | 16 MiB | FAT, label HOLDFAST: `seed.toml`, reports |
//! | `hf-rescue` | 128 MiB | header block, then a copy of a committed UKI |
//! | `hf-boot-a`, `hf-boot-b` | 128 MiB each | header block, then the UKI |
//! | `hf-root-a`, `hf-root-b` | 1 GiB each | read-only file system, then its dm-verity tree |
//! | `hf-var` | the rest | `/var` |

use crate::guid::Guid;
use crate::slots::Slot;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Where partitions start and end, in bytes: whole MiB.
pub const ALIGN: u64 = MIB;
/// Offsets of the two copies of the slot record in `hf-slots`, in bytes.
pub const RECORD_COPIES: [u64; 2] = [0, MIB];
/// Offsets of the two copies of the release list in `hf-slots`, in bytes.
pub const RELEASE_COPIES: [u64; 2] = [512 * KIB, 1536 * KIB];
/// Offset of the header block in `hf-boot-a`, `hf-boot-b` and `hf-rescue`, in bytes.
pub const HEADER_OFFSET: u64 = 0;
/// Offset of the payload there, in bytes: far from the header, so that flash memory does not
/// rewrite the two together.
pub const PAYLOAD_OFFSET: u64 = MIB;
/// The longest payload of a boot partition, in bytes.
pub const PAYLOAD_MAX: u64 = 128 * MIB - PAYLOAD_OFFSET;
/// The smallest `hf-var` of an image, in bytes.
pub const VAR_MIN: u64 = 16 * MIB;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// EFI system partition.
    Esp,
    /// Slot record and release list.
    Slots,
    /// Identity and settings of the node.
    State,
    /// Seed and reports.
    Seed,
    /// The rescue UKI.
    Rescue,
    /// A slot's UKI.
    Boot(Slot),
    /// A slot's root file system with its verity tree.
    Root(Slot),
    /// `/var`.
    Var,
}

impl Role {
    /// All roles, in the order of the disk.
    pub const ALL: [Self; 10] = [
        Self::Esp,
        Self::Slots,
        Self::State,
        Self::Seed,
        Self::Rescue,
        Self::Boot(Slot::A),
        Self::Boot(Slot::B),
        Self::Root(Slot::A),
        Self::Root(Slot::B),
        Self::Var,
    ];

    /// The partition's name in the GPT.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Esp => "esp",
            Self::Slots => "hf-slots",
            Self::State => "hf-state",
            Self::Seed => "hf-seed",
            Self::Rescue => "hf-rescue",
            Self::Boot(Slot::A) => "hf-boot-a",
            Self::Boot(Slot::B) => "hf-boot-b",
            Self::Root(Slot::A) => "hf-root-a",
            Self::Root(Slot::B) => "hf-root-b",
            Self::Var => "hf-var",
        }
    }

    /// The role of a partition of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }

    /// Size in bytes; of `hf-var` the least.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::Esp => 64 * MIB,
            Self::Slots => 2 * MIB,
            Self::State => 32 * MIB,
            Self::Seed => 16 * MIB,
            Self::Rescue | Self::Boot(_) => 128 * MIB,
            Self::Root(_) => 1024 * MIB,
            Self::Var => VAR_MIN,
        }
    }

    /// The partition type, the same on every node. `esp` and `hf-seed` carry the types that
    /// firmware and desktop systems know (UEFI 2.10, 5.3.3; Microsoft basic data).
    #[must_use]
    pub const fn type_guid(self) -> Guid {
        Guid::from_u128(match self {
            Self::Esp => 0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b,
            Self::Slots => 0xf9709f92_7d7b_401b_a3cf_daa1c06fa641,
            Self::State => 0xa95383e7_1885_4d23_ae4f_6d23c9797652,
            Self::Seed => 0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7,
            Self::Rescue => 0x3da53424_1bfd_4333_8477_45cbecaa6991,
            Self::Boot(Slot::A) => 0x10afab42_f84a_44b9_b205_ac87ad5a3ff4,
            Self::Boot(Slot::B) => 0x115f5f03_bc2f_4ef9_bdb3_1306b1ee74ad,
            Self::Root(Slot::A) => 0xa80d79c2_9a37_43b0_b94e_90c5fb80ba55,
            Self::Root(Slot::B) => 0x02651ec4_9d97_4e7d_b1e8_c6ed399e159f,
            Self::Var => 0x978b77bd_a607_4172_b921_570d7d971060,
        })
    }
}

/// A stretch of the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// What lies there.
    pub role: Role,
    /// First byte.
    pub offset: u64,
    /// Length.
    pub len: u64,
}

/// Where each partition lies when `hf-var` is `var` bytes (rounded up to whole MiB, at least
/// [`VAR_MIN`]), and how large the disk must be: the table and its backup take one MiB each.
#[must_use]
pub fn plan(var: u64) -> ([Extent; 10], u64) {
    let mut at = ALIGN;
    let extents = Role::ALL.map(|role| {
        let len = match role {
            Role::Var => var.max(VAR_MIN).div_ceil(ALIGN) * ALIGN,
            fixed => fixed.size(),
        };
        let extent = Extent {
            role,
            offset: at,
            len,
        };
        at += len;
        extent
    });
    (extents, at + ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_types_are_unique_and_read_back() {
        let types: BTreeSet<_> = Role::ALL.iter().map(|r| r.type_guid()).collect();
        assert_eq!(types.len(), Role::ALL.len());
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert_eq!(
            Role::Esp.type_guid().to_string(),
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
        );
        assert_eq!(Role::from_name("hf-boot-c"), None);
    }

    #[test]
    fn partitions_follow_each_other_whole_mebibytes() {
        let (extents, disk) = plan(MIB + 1);
        let mut at = ALIGN;
        for e in extents {
            assert_eq!((e.offset, e.offset % ALIGN, e.len % ALIGN), (at, 0, 0));
            at += e.len;
        }
        assert_eq!(disk, at + ALIGN);
        assert_eq!(extents[9].len, VAR_MIN);
        assert_eq!(extents[5].offset, (1 + 64 + 2 + 32 + 16 + 128) * MIB);
    }
}
