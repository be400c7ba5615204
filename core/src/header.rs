//! The header in front of a UKI in `hf-boot-a`, `hf-boot-b` and `hf-rescue`: one signed block.
//!
//! Version 1. Little endian; bytes not named are zero when written, ignored when read, and signed.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `HFSLTHDR` |
//! | 8 | 2, 2 | major version (1), minor version (0) |
//! | 12 | 1 | encoding of the payload: 0 raw, 1 zstd |
//! | 13 | 1 | digest algorithm: 0 SHA-256 |
//! | 14 | 1 | hardware watchdog: 0 none, 1 i6300esb, 2 iTCO, 3 BCM2835 |
//! | 16 | 2 | watchdog timeout, seconds |
//! | 24 | 8 | generation |
//! | 32 | 8 | payload length as stored, bytes |
//! | 40 | 8 | payload length decoded, bytes |
//! | 48 | 32 | digest of the payload as stored |
//! | 80 | 1 + 63 | board name |
//! | 144 | 1 + 63 | image version, for people |
//! | 4000 | 32 | release key (Ed25519) |
//! | 4032 | 64 | its signature over `holdfast slot header 1\n` and bytes 0 to 4031 |
//!
//! A slot's digest in the record is the SHA-256 of the whole block: it binds everything above.

use crate::bytes::{BLOCK, Block, get, put, u16_at, u64_at};
use crate::layout::PAYLOAD_MAX;
use crate::releases::ReleaseList;
use crate::text::Text;
use core::fmt;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 8] = b"HFSLTHDR";
const MAJOR: u16 = 1;
const CONTEXT: &[u8] = b"holdfast slot header 1\n";
const KEY_AT: usize = 4000;
const SIGNATURE_AT: usize = 4032;
/// The longest payload once decoded, in bytes: it must fit into the memory of a small board.
pub const DECODED_MAX: u64 = 256 * 1024 * 1024;

/// How the payload is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// The hardware watchdog that the loader arms before it starts the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// The board has none.
    None,
    /// Intel 6300ESB: QEMU's and Proxmox's `i6300esb`.
    I6300esb,
    /// Intel chipsets' TCO timer.
    Itco,
    /// Raspberry Pi.
    Bcm2835,
    /// One that only a newer loader knows.
    Unknown(u8),
}

impl Watchdog {
    const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::I6300esb => 1,
            Self::Itco => 2,
            Self::Bcm2835 => 3,
            Self::Unknown(n) => n,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::None,
            1 => Self::I6300esb,
            2 => Self::Itco,
            3 => Self::Bcm2835,
            n => Self::Unknown(n),
        }
    }

    /// The name that board files use, if it is one of theirs.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::I6300esb, Self::Itco, Self::Bcm2835]
            .into_iter()
            .find(|w| w.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::I6300esb => "i6300esb",
            Self::Itco => "itco",
            Self::Bcm2835 => "bcm2835",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl fmt::Display for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(n) => write!(f, "unknown ({n})"),
            known => f.write_str(known.name()),
        }
    }
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Nothing was written here, or something else was.
    #[error("no slot header here")]
    Absent,
    /// Written by a newer major version.
    #[error("slot header of version {0}; this loader reads version 1")]
    Version(u16),
    /// A field's value is not one that version 1 knows.
    #[error("slot header: {field} is {value}, which version 1 does not know")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A text is not UTF-8 of its length.
    #[error("slot header: the {0} is not text")]
    NotText(&'static str),
    /// The signer is not in the release list.
    #[error("slot header signed by a key that is not in the release list (generation {list})")]
    UnknownKey {
        /// The list's generation.
        list: u64,
    },
    /// The signature does not fit.
    #[error("slot header: the signature does not fit")]
    BadSignature,
}

/// What stands in front of a UKI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotHeader {
    /// How the payload is stored.
    pub encoding: Encoding,
    /// What the loader arms.
    pub watchdog: Watchdog,
    /// After how many seconds it fires.
    pub watchdog_seconds: u16,
    /// Counts releases; never goes back for a node unless its operator rolls back.
    pub generation: u64,
    /// Payload length as stored, in bytes.
    pub stored_len: u64,
    /// Payload length once decoded, in bytes.
    pub decoded_len: u64,
    /// SHA-256 of the payload as stored.
    pub payload: [u8; 32],
    /// The board this image is for.
    pub board: Text<63>,
    /// The image's version, for people.
    pub version: Text<63>,
}

impl SlotHeader {
    /// Encodes the block for the release key `key`; `sign` signs the bytes it is given with it.
    #[must_use]
    pub fn encode(&self, key: &[u8; 32], sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Block {
        let mut b = [0; BLOCK];
        put(&mut b, 0, MAGIC);
        put(&mut b, 8, &MAJOR.to_le_bytes());
        b[12] = match self.encoding {
            Encoding::Raw => 0,
            Encoding::Zstd => 1,
        };
        b[14] = self.watchdog.code();
        put(&mut b, 16, &self.watchdog_seconds.to_le_bytes());
        put(&mut b, 24, &self.generation.to_le_bytes());
        put(&mut b, 32, &self.stored_len.to_le_bytes());
        put(&mut b, 40, &self.decoded_len.to_le_bytes());
        put(&mut b, 48, &self.payload);
        self.board.write(&mut b, 80);
        self.version.write(&mut b, 144);
        put(&mut b, KEY_AT, key);
        let signature = sign(&signed_bytes(&b));
        put(&mut b, SIGNATURE_AT, &signature);
        b
    }

    /// Reads a block without asking who signed it: for display, and before the list is at hand.
    ///
    /// # Errors
    /// [`HeaderError`] except for its signature cases.
    pub fn parse(b: &Block) -> Result<Self, HeaderError> {
        if &b[..8] != MAGIC {
            return Err(HeaderError::Absent);
        }
        let major = u16_at(b, 8);
        if major != MAJOR {
            return Err(HeaderError::Version(major));
        }
        let encoding = match b[12] {
            0 => Encoding::Raw,
            1 => Encoding::Zstd,
            n => {
                return Err(HeaderError::Field {
                    field: "encoding",
                    value: n.into(),
                });
            }
        };
        if b[13] != 0 {
            return Err(HeaderError::Field {
                field: "digest algorithm",
                value: b[13].into(),
            });
        }
        let stored_len = u64_at(b, 32);
        if stored_len == 0 || stored_len > PAYLOAD_MAX {
            return Err(HeaderError::Field {
                field: "stored length",
                value: stored_len,
            });
        }
        let decoded_len = u64_at(b, 40);
        let raw_fits = encoding != Encoding::Raw || decoded_len == stored_len;
        if decoded_len == 0 || decoded_len > DECODED_MAX || !raw_fits {
            return Err(HeaderError::Field {
                field: "decoded length",
                value: decoded_len,
            });
        }
        Ok(Self {
            encoding,
            watchdog: Watchdog::from_code(b[14]),
            watchdog_seconds: u16_at(b, 16),
            generation: u64_at(b, 24),
            stored_len,
            decoded_len,
            payload: get(b, 48),
            board: Text::read(b, 80).ok_or(HeaderError::NotText("board name"))?,
            version: Text::read(b, 144).ok_or(HeaderError::NotText("image version"))?,
        })
    }

    /// Reads a block and checks that a key of `list` signed it.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn verify(b: &Block, list: &ReleaseList) -> Result<Self, HeaderError> {
        let header = Self::parse(b)?;
        let key: [u8; 32] = get(b, KEY_AT);
        if !list.keys().contains(&key) {
            return Err(HeaderError::UnknownKey {
                list: list.generation,
            });
        }
        let signature = Signature::from_bytes(&get(b, SIGNATURE_AT));
        VerifyingKey::from_bytes(&key)
            .and_then(|k| k.verify_strict(&signed_bytes(b), &signature))
            .map_err(|_| HeaderError::BadSignature)?;
        Ok(header)
    }
}

/// The slot's digest for the record: SHA-256 of the whole header block.
#[must_use]
pub fn slot_digest(b: &Block) -> [u8; 32] {
    Sha256::digest(b).into()
}

fn signed_bytes(b: &Block) -> [u8; CONTEXT.len() + SIGNATURE_AT] {
    let mut out = [0; CONTEXT.len() + SIGNATURE_AT];
    out[..CONTEXT.len()].copy_from_slice(CONTEXT);
    out[CONTEXT.len()..].copy_from_slice(&b[..SIGNATURE_AT]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;

    fn sample() -> SlotHeader {
        SlotHeader {
            encoding: Encoding::Raw,
            watchdog: Watchdog::I6300esb,
            watchdog_seconds: 60,
            generation: 7,
            stored_len: 1000,
            decoded_len: 1000,
            payload: [9; 32],
            board: Text::new("x86-64"),
            version: Text::new("1.2.3"),
        }
    }

    fn signed(header: &SlotHeader, key: &SigningKey) -> Block {
        header.encode(key.verifying_key().as_bytes(), |m| key.sign(m).to_bytes())
    }

    #[test]
    fn reads_back_what_a_listed_key_signed() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let list = ReleaseList::new([0; 16], 3, &[key.verifying_key().to_bytes()]).unwrap();
        let block = signed(&sample(), &key);
        assert_eq!(SlotHeader::verify(&block, &list), Ok(sample()));
    }

    #[test]
    fn refuses_a_stranger_and_says_which_list() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let list = ReleaseList::new([0; 16], 3, &[[5; 32]]).unwrap();
        let block = signed(&sample(), &key);
        assert_eq!(
            SlotHeader::verify(&block, &list),
            Err(HeaderError::UnknownKey { list: 3 })
        );
        assert_eq!(SlotHeader::parse(&[0; BLOCK]), Err(HeaderError::Absent));
    }

    #[test]
    fn a_raw_payload_has_one_length() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let header = SlotHeader {
            decoded_len: 5000,
            ..sample()
        };
        let err = SlotHeader::parse(&signed(&header, &key)).unwrap_err();
        assert_eq!(
            err,
            HeaderError::Field {
                field: "decoded length",
                value: 5000
            }
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_flipped_bit_is_seen(bit in 0usize..BLOCK * 8) {
            let key = SigningKey::from_bytes(&[1; 32]);
            let list = ReleaseList::new([0; 16], 3, &[key.verifying_key().to_bytes()]).unwrap();
            let mut block = signed(&sample(), &key);
            block[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SlotHeader::verify(&block, &list).is_err());
        }
    }
}
