//! X25519 keys. The public half is [`MeshKey`], as it stands in documents and records.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::ZeroizeOnDrop;

pub use holdfast_core::keys::MeshKey;

/// A WireGuard private key: 32 bytes, clamped when used (RFC 7748). Wiped when dropped, never
/// printed.
#[derive(Clone, ZeroizeOnDrop)]
pub struct MeshPrivateKey([u8; 32]);

/// The text of a private key was refused; the text itself is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard private key: expected 44 characters of base64 (32 bytes)")]
pub struct BadPrivateKey;

impl MeshPrivateKey {
    /// A fresh key from the operating system's random source.
    ///
    /// # Errors
    /// When that source cannot be read.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|e| {
            std::io::Error::other(format!("no random bytes from the operating system: {e}"))
        })?;
        Ok(Self(bytes))
    }

    /// From 32 stored or derived bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 secret bytes, for storing.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the base64 form.
    ///
    /// # Errors
    /// [`BadPrivateKey`], without the text.
    pub fn from_text(text: &str) -> Result<Self, BadPrivateKey> {
        B64.decode(text.trim())
            .ok()
            .and_then(|v| v.try_into().ok())
            .map(Self)
            .ok_or(BadPrivateKey)
    }

    /// The base64 form, as `wg` prints it.
    #[must_use]
    pub fn to_text(&self) -> String {
        B64.encode(self.0)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> MeshKey {
        MeshKey(PublicKey::from(&self.secret()).to_bytes())
    }

    pub(crate) fn secret(&self) -> StaticSecret {
        StaticSecret::from(self.0)
    }
}

impl fmt::Debug for MeshPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshPrivateKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_half_matches_rfc_7748() {
        // RFC 7748, section 6.1: Alice's key pair.
        let bytes = |hex| holdfast_core::keys::unhex(hex).unwrap().try_into().unwrap();
        let alice = MeshPrivateKey::from_bytes(bytes(
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        ));
        let public: [u8; 32] =
            bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(alice.public(), MeshKey(public));
    }

    #[test]
    fn text_form_comes_back() {
        let key = MeshPrivateKey::generate().unwrap();
        let again = MeshPrivateKey::from_text(&key.to_text()).unwrap();
        assert_eq!(key.public(), again.public());
    }

    #[test]
    fn a_bad_text_is_not_repeated() {
        let error = MeshPrivateKey::from_text("c2VjcmV0")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("c2VjcmV0"), "{error}");
        assert!(!format!("{:?}", MeshPrivateKey::from_bytes([7; 32])).contains('7'));
    }
}
