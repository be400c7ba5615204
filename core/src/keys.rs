//! Keys, signatures and digests as values; text forms are base64 (keys) and hex (digests).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::ZeroizeOnDrop;

/// Why a key, signature or digest in text form was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64 or hex of the right length.
    #[error("{text:?} is not a {kind}: {expected}")]
    Malformed {
        /// What was expected.
        kind: &'static str,
        /// The refused text (secrets are never put here).
        text: String,
        /// The right form.
        expected: &'static str,
    },
    /// The bytes are no point of the curve.
    #[error("{0} is not a valid Ed25519 public key")]
    NotAPoint(String),
    /// A signature does not fit key and bytes.
    #[error("the signature by {0} does not fit")]
    BadSignature(PublicKey),
}

fn b64_32(kind: &'static str, text: &str) -> Result<[u8; 32], KeyError> {
    B64.decode(text)
        .ok()
        .and_then(|v| v.try_into().ok())
        .ok_or_else(|| KeyError::Malformed {
            kind,
            text: text.chars().take(64).collect(),
            expected: "44 characters of base64 (32 bytes)",
        })
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(pub [u8; 32]);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&B64.encode(self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl std::str::FromStr for $type {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                b64_32($kind, text).map(Self)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

bytes32!(
    /// An Ed25519 public key (RFC 8032).
    PublicKey, "public key"
);
bytes32!(
    /// A WireGuard (X25519) public key.
    MeshKey, "WireGuard public key"
);

impl PublicKey {
    /// Checks `signature` over `bytes`, refusing malleable forms.
    ///
    /// # Errors
    /// [`KeyError`] if the key is no point or the signature does not fit.
    pub fn verify(&self, bytes: &[u8], signature: &Signature) -> Result<(), KeyError> {
        let key =
            VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::NotAPoint(self.to_string()))?;
        key.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&signature.0))
            .map_err(|_| KeyError::BadSignature(*self))
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&B64.encode(self.0))
    }
}
impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&B64.encode(self.0))
    }
}
impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        B64.decode(&text)
            .ok()
            .and_then(|v| v.try_into().ok())
            .map(Self)
            .ok_or_else(|| D::Error::custom("a signature is 88 characters of base64 (64 bytes)"))
    }
}

/// An Ed25519 private key; wiped when dropped, never printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// From 32 bytes of a random source.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// Reads the base64 form; the error never repeats the text.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] without the value.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        b64_32("private key", text.trim())
            .map(Self)
            .map_err(|_| KeyError::Malformed {
                kind: "private key",
                text: "(hidden)".into(),
                expected: "44 characters of base64 (32 bytes)",
            })
    }

    /// The base64 form, for a seed or an encrypted file.
    #[must_use]
    pub fn to_text(&self) -> String {
        B64.encode(self.0)
    }

    /// The 32 secret bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(SigningKey::from_bytes(&self.0).verifying_key().to_bytes())
    }

    /// Signs `bytes` (deterministic, RFC 8032).
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature(SigningKey::from_bytes(&self.0).sign(bytes).to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}
impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_text())
    }
}
impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        PrivateKey::from_text(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// A SHA-256 digest, in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
}

/// Reads hex of even length; `None` when a character is no hex digit.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    // Rust's own parser takes a sign.
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl std::str::FromStr for Digest {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        unhex(text)
            .and_then(|v| v.try_into().ok())
            .map(Self)
            .ok_or_else(|| KeyError::Malformed {
                kind: "SHA-256 digest",
                text: text.chars().take(80).collect(),
                expected: "64 hex digits",
            })
    }
}
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}
