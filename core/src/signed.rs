//! An envelope for anything signed: the exact bytes travel with the signature, so that no
//! canonical form is needed and a newer writer's unknown fields survive an older relay.

use crate::keys::{KeyError, PrivateKey, PublicKey, Signature};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// What can stand in an envelope. `KIND` separates the domains of signatures: one made over a
/// grant can never be passed off as one over a document.
pub trait Signable: Serialize + DeserializeOwned {
    /// The kind with its format version, e.g. `grant/1`.
    const KIND: &'static str;
}

/// Why an envelope was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Signature or key.
    #[error("{kind}: {source}")]
    Signature {
        /// The envelope's kind.
        kind: &'static str,
        /// Which check failed.
        source: KeyError,
    },
    /// Signed by a key that was not asked for.
    #[error("{kind}: signed by {key}, which is not trusted for it")]
    Untrusted {
        /// The envelope's kind.
        kind: &'static str,
        /// The signer.
        key: PublicKey,
    },
    /// The signature fits, the content does not parse.
    #[error("{kind}: the signed content does not parse: {reason}")]
    Content {
        /// The envelope's kind.
        kind: &'static str,
        /// The parser's words.
        reason: String,
    },
}

/// `T` as signed bytes; only [`Signed::open`] gives the value out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Signed<T> {
    /// Base64 of the JSON bytes that were signed.
    payload: String,
    /// The signer's key.
    key: PublicKey,
    /// Over `holdfast:KIND\0` and the payload bytes.
    signature: Signature,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

fn message(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("holdfast:{kind}\0").into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl<T: Signable> Signed<T> {
    /// Signs `value` with `key`.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON (a map with keys that are no text).
    pub fn sign(value: &T, key: &PrivateKey) -> Result<Self, serde_json::Error> {
        let bytes = serde_json::to_vec(value)?;
        Ok(Self {
            signature: key.sign(&message(T::KIND, &bytes)),
            payload: B64.encode(&bytes),
            key: key.public(),
            of: PhantomData,
        })
    }

    /// Who claims to have signed (checked by [`Signed::open`] only).
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The value, if the signature fits and `trusted` accepts the signer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, trusted: impl Fn(&PublicKey) -> bool) -> Result<T, OpenError> {
        if !trusted(&self.key) {
            return Err(OpenError::Untrusted {
                kind: T::KIND,
                key: self.key,
            });
        }
        let content = |reason: String| OpenError::Content {
            kind: T::KIND,
            reason,
        };
        let bytes = B64
            .decode(&self.payload)
            .map_err(|e| content(e.to_string()))?;
        self.key
            .verify(&message(T::KIND, &bytes), &self.signature)
            .map_err(|source| OpenError::Signature {
                kind: T::KIND,
                source,
            })?;
        serde_json::from_slice(&bytes).map_err(|e| content(e.to_string()))
    }

    /// The value if its own signature fits, whoever signed: for records whose signer is checked
    /// against the content afterwards.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_self(&self) -> Result<(T, PublicKey), OpenError> {
        Ok((self.open(|_| true)?, self.key))
    }
}

impl<T> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed(by {})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
    struct A {
        x: u32,
    }
    impl Signable for A {
        const KIND: &'static str = "a/1";
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct B {
        x: u32,
    }
    impl Signable for B {
        const KIND: &'static str = "b/1";
    }

    #[test]
    fn opens_only_for_its_kind_signer_and_bytes() {
        let key = PrivateKey::from_bytes([7; 32]);
        let signed = Signed::sign(&A { x: 1 }, &key).unwrap();
        assert_eq!(signed.open(|k| *k == key.public()).unwrap(), A { x: 1 });
        assert!(matches!(
            signed.open(|_| false),
            Err(OpenError::Untrusted { .. })
        ));

        let text = serde_json::to_string(&signed).unwrap();
        let as_b: Signed<B> = serde_json::from_str(&text).unwrap();
        assert!(matches!(
            as_b.open(|_| true),
            Err(OpenError::Signature { .. })
        ));

        let mut forged = signed.clone();
        forged.payload = B64.encode(br#"{"x":2}"#);
        assert!(matches!(
            forged.open(|_| true),
            Err(OpenError::Signature { .. })
        ));
    }
}
