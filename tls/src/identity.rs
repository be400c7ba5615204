//! A key in the form that TLS wants: a self-signed certificate around it.

use holdfast_core::keys::{PrivateKey, PublicKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ED25519, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// PKCS#8 version 1 around an Ed25519 seed (RFC 8410, section 7): what comes before the 32 bytes.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// No certificate or configuration could be made for a key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate.
    #[error("no certificate could be made for key {key}: {source}")]
    Certificate {
        /// The key.
        key: PublicKey,
        /// rcgen's words.
        source: rcgen::Error,
    },
    /// The TLS configuration around it.
    #[error("no TLS configuration could be made: {0}")]
    Config(#[from] rustls::Error),
}

/// A private key and its certificate.
pub struct Identity {
    key: PublicKey,
    certificate: CertificateDer<'static>,
    private: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    /// The certificate depends on nothing but the key: valid from 1970 to 4096, one fixed name.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] when the key is refused.
    pub fn from_key(key: &PrivateKey) -> Result<Self, IdentityError> {
        let public = key.public();
        let failed = |source| IdentityError::Certificate {
            key: public,
            source,
        };
        let mut der = PKCS8_PREFIX.to_vec();
        der.extend_from_slice(key.as_bytes());
        let private = PrivatePkcs8KeyDer::from(der);
        let pair =
            KeyPair::from_pkcs8_der_and_sign_algo(&private, &PKCS_ED25519).map_err(failed)?;
        let mut params = CertificateParams::new(vec!["holdfast".into()]).map_err(failed)?;
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(4096, 1, 1);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "holdfast");
        let certificate = params.self_signed(&pair).map_err(failed)?.der().clone();
        Ok(Self {
            key: public,
            certificate,
            private,
        })
    }

    /// The public half, which the other side pins.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(crate) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.private.clone_key())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::spki_key;

    #[test]
    fn the_certificate_follows_from_the_key_alone_and_carries_it() {
        let key = PrivateKey::from_bytes([5; 32]);
        let a = Identity::from_key(&key).unwrap();
        let b = Identity::from_key(&key).unwrap();
        assert_eq!(a.certificate, b.certificate);
        assert_eq!(spki_key(&a.certificate), Some(key.public()));
    }
}
