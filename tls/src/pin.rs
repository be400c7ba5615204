//! One verifier that compares a key, or a whole certificate, and looks at nothing else.

use crate::fingerprint::Fingerprint;
use holdfast_core::keys::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
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

/// The other side has another key or certificate than the one that was pinned.
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
    /// Another certificate.
    #[error("its certificate has the fingerprint {found}; {expected} was expected")]
    OtherCertificate {
        /// What was pinned.
        expected: Fingerprint,
        /// What it showed.
        found: Fingerprint,
    },
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

/// What the other side's certificate is held against.
#[derive(Debug, Clone)]
pub(crate) enum Pin {
    /// Any Ed25519 key: whose it is, is asked later.
    AnyKey,
    /// One of these keys.
    Keys(Vec<PublicKey>),
    /// This certificate, whatever its key is.
    Certificate(Fingerprint),
}

impl Pin {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), PinMismatch> {
        if let Self::Certificate(expected) = *self {
            let found = Fingerprint::of(certificate);
            return match found == expected {
                true => Ok(()),
                false => Err(PinMismatch::OtherCertificate { expected, found }),
            };
        }
        let found = spki_key(certificate).ok_or(PinMismatch::NotEd25519)?;
        match self {
            Self::Keys(expected) if !expected.contains(&found) => Err(PinMismatch::OtherKey {
                expected: expected.clone(),
                found,
            }),
            _ => Ok(()),
        }
    }
}

/// Accepts what fits its pin.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    pin: Pin,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinVerifier {
    /// `mandatory`: as a server, a client that shows no certificate is refused.
    pub(crate) fn new(pin: Pin, mandatory: bool, provider: &CryptoProvider) -> Self {
        Self {
            pin,
            mandatory,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        self.pin.check(certificate).map_err(refuse)
    }

    /// Servers that are not ours may speak TLS 1.2. Among ours it is never offered; should it come up
    /// all the same, it ends here.
    fn tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.pin {
            Pin::Certificate(_) => {
                verify_tls12_signature(message, certificate, signed, &self.algorithms)
            }
            _ => Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)),
        }
    }

    fn tls13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        match self.pin {
            Pin::Certificate(_) => self.algorithms.supported_schemes(),
            _ => vec![SignatureScheme::ED25519],
        }
    }
}

impl ServerCertVerifier for PinVerifier {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for PinVerifier {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
