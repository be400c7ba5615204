//! The TLS configurations.

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, IdentityError};
use crate::pin::{Pin, PinVerifier};
use holdfast_core::keys::PublicKey;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::UnixTime;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig, version::TLS13};
use std::sync::Arc;
use std::time::Duration;

/// What a server asks of its clients' keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A key may be shown; whose it is, the server finds out with [`crate::peer_key`].
    Optional,
    /// A key must be shown.
    Required,
    /// One of these keys must be shown.
    Only(Vec<PublicKey>),
}

/// Nothing here depends on the time, so the clock is never asked: it may not be set yet.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A server that shows `identity`. `alpn`: protocol ids (RFC 7301), none: any.
///
/// # Errors
/// [`IdentityError::Config`] when rustls refuses the identity.
pub fn server_config(
    identity: &Identity,
    alpn: &[&[u8]],
    clients: ClientAuth,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let provider = provider();
    let verifier = |pin, mandatory| Arc::new(PinVerifier::new(pin, mandatory, &provider));
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(NoClock))
        .with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional => builder.with_client_cert_verifier(verifier(Pin::AnyKey, false)),
        ClientAuth::Required => builder.with_client_cert_verifier(verifier(Pin::AnyKey, true)),
        ClientAuth::Only(keys) => {
            builder.with_client_cert_verifier(verifier(Pin::Keys(keys), true))
        }
    };
    let mut config = builder.with_single_cert(identity.chain(), identity.private())?;
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// A client that talks to `server` alone, showing `identity` if there is one.
///
/// # Errors
/// [`IdentityError::Config`] when rustls refuses the identity.
pub fn client_config(
    identity: Option<&Identity>,
    server: PublicKey,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = provider();
    let verifier = Arc::new(PinVerifier::new(Pin::Keys(vec![server]), true, &provider));
    let builder = ClientConfig::builder_with_details(provider, Arc::new(NoClock))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.private())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// A client that talks to the server with this certificate alone, over TLS 1.2 or 1.3: for servers
/// that are not ours. Names and dates are not looked at.
///
/// # Errors
/// [`IdentityError::Config`] when rustls refuses.
pub fn certificate_config(
    expected: Fingerprint,
    alpn: &[&[u8]],
) -> Result<ClientConfig, IdentityError> {
    let provider = provider();
    let verifier = PinVerifier::new(Pin::Certificate(expected), true, &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}
