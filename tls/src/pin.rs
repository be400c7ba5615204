//! Verifiers that compare keys and nothing else.

use holdfast_core::keys::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CommonState, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use std::sync::Arc;

/// `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410, section 4): what comes before the 32 bytes.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The other side has another key than the one that was pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinMismatch {
    /// Another key.
    #[error("the other side's key is {found}; {} was expected", list(expected))]
    OtherKey {
        /// What was pinned.
        expected: Vec<PublicKey>,
        /// What it showed.
        found: PublicKey,
    },
    /// Its certificate carries no Ed25519 key, so it is no part of Holdfast.
    #[error("the other side's certificate carries no Ed25519 key")]
    NotEd25519,
}

fn list(keys: &[PublicKey]) -> String {
    keys.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" or ")
}

/// The Ed25519 key in an X.509 certificate; nothing else in it is looked at.
#[must_use]
pub fn spki_key(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let spki = parsed.subject_public_key_info();
    let raw = spki.as_ref().strip_prefix(&SPKI_PREFIX[..])?;
    raw.try_into().ok().map(PublicKey)
}

/// The key that the other side of a finished handshake proved to hold.
#[must_use]
pub fn peer_key(connection: &CommonState) -> Option<PublicKey> {
    connection.peer_certificates()?.first().and_then(spki_key)
}

/// Finds a [`PinMismatch`] among the causes of `error`, however deep HTTP layers buried it.
#[must_use]
pub fn pin_mismatch<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a PinMismatch> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<PinMismatch>() {
            return Some(found);
        }
        if let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) =
            error.downcast_ref::<Error>()
        {
            return inner.downcast_ref();
        }
        // io::Error's source() skips the error that it wraps.
        next = match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn refuse(mismatch: PinMismatch) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))
}

/// Accepts certificates by their key; `None`: any Ed25519 key.
#[derive(Debug)]
pub(crate) struct KeyVerifier {
    allowed: Option<Vec<PublicKey>>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    pub(crate) fn new(
        allowed: Option<Vec<PublicKey>>,
        mandatory: bool,
        provider: &CryptoProvider,
    ) -> Self {
        Self {
            allowed,
            mandatory,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = spki_key(certificate).ok_or_else(|| refuse(PinMismatch::NotEd25519))?;
        match &self.allowed {
            Some(expected) if !expected.contains(&found) => Err(refuse(PinMismatch::OtherKey {
                expected: expected.clone(),
                found,
            })),
            _ => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

/// TLS 1.2 is never offered; should it come up all the same, it ends here.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
