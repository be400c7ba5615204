//! Who gets in, who does not, and that nothing is resumed.

use holdfast_core::keys::{PrivateKey, PublicKey};
use holdfast_tls::{
    ClientAuth, ClientConfig, Identity, PinMismatch, ServerConfig, accept, client_config, connect,
    peer_key, pin_mismatch, server_config,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{HandshakeKind, ProtocolVersion};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

fn identity(n: u8) -> Identity {
    Identity::from_key(&key(n)).unwrap()
}

#[derive(Debug)]
struct Met {
    client: Option<PublicKey>,
    kind: Option<HandshakeKind>,
    version: Option<ProtocolVersion>,
}

/// Both sides of a connection, a byte each way.
async fn meet(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (std::io::Result<u8>, std::io::Result<Met>) {
    let (a, b) = duplex(16 << 10);
    let server = async {
        let mut stream = accept(b, server).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte + 1).await?;
        stream.shutdown().await?;
        let tls = stream.get_ref().1;
        Ok(Met {
            client: peer_key(tls),
            kind: tls.handshake_kind(),
            version: tls.protocol_version(),
        })
    };
    let client = async {
        let mut stream = connect(a, client).await?;
        stream.write_u8(1).await?;
        stream.read_u8().await
    };
    tokio::join!(client, server)
}

#[tokio::test]
async fn the_right_keys_meet_and_know_each_other() {
    let server = server_config(&identity(1), &[b"x"], ClientAuth::Required).unwrap();
    let client = client_config(Some(&identity(2)), key(1).public(), &[b"x"]).unwrap();
    let (got, met) = meet(client, server).await;
    assert_eq!(got.unwrap(), 2);
    let met = met.unwrap();
    assert_eq!(met.client, Some(key(2).public()));
    assert_eq!(met.version, Some(ProtocolVersion::TLSv1_3));
}

/// With a certificate for `n` that is valid in the given years only.
fn dated(n: u8, years: [i32; 2]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut der = hex("302e020100300506032b657004220420");
    der.extend_from_slice(key(n).as_bytes());
    let private = PrivatePkcs8KeyDer::from(der);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&private, &rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::new(vec!["holdfast".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years[0], 1, 1);
    params.not_after = rcgen::date_time_ymd(years[1], 1, 1);
    let certificate = params.self_signed(&pair).unwrap();
    (vec![certificate.der().clone()], private.into())
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
        .collect()
}

/// To each end the other's clock is years off: by these dates one is over long since, the other has
/// not begun.
#[tokio::test]
async fn clocks_years_apart_do_not_matter() {
    for [ours, theirs] in [[[1970, 1971], [2050, 2051]], [[2050, 2051], [1970, 1971]]] {
        let (chain, private) = dated(1, theirs);
        let mut server = (*server_config(&identity(1), &[], ClientAuth::Required).unwrap()).clone();
        server.cert_resolver = Arc::new(SingleCertAndKey::from(
            CertifiedKey::from_der(chain, private, server.crypto_provider()).unwrap(),
        ));
        let (chain, private) = dated(2, ours);
        let mut client =
            (*client_config(Some(&identity(2)), key(1).public(), &[]).unwrap()).clone();
        client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(
            CertifiedKey::from_der(chain, private, client.crypto_provider()).unwrap(),
        ));
        let (got, met) = meet(client.into(), server.into()).await;
        assert_eq!(got.unwrap(), 2);
        assert_eq!(met.unwrap().client, Some(key(2).public()));
    }
}

#[tokio::test]
async fn another_servers_key_is_refused_and_named() {
    let server = server_config(&identity(1), &[], ClientAuth::None).unwrap();
    let client = client_config(None, key(9).public(), &[]).unwrap();
    let (got, met) = meet(client, server).await;
    let error = got.unwrap_err();
    assert_eq!(
        pin_mismatch(&error),
        Some(&PinMismatch::OtherKey {
            expected: vec![key(9).public()],
            found: key(1).public()
        })
    );
    assert!(met.is_err());
}

#[tokio::test]
async fn a_client_without_or_with_another_key_is_refused() {
    let only = ClientAuth::Only(vec![key(2).public()]);
    let server = server_config(&identity(1), &[], only).unwrap();
    let other = client_config(Some(&identity(3)), key(1).public(), &[]).unwrap();
    let (got, met) = meet(other, server.clone()).await;
    assert!(got.is_err());
    assert!(matches!(
        pin_mismatch(&met.unwrap_err()),
        Some(PinMismatch::OtherKey { .. })
    ));

    let nobody = client_config(None, key(1).public(), &[]).unwrap();
    let (got, met) = meet(nobody.clone(), server).await;
    assert!(got.is_err() && met.is_err());
    let optional = server_config(&identity(1), &[], ClientAuth::Optional).unwrap();
    let (got, met) = meet(nobody, optional).await;
    assert_eq!((got.unwrap(), met.unwrap().client), (2, None));
}

/// A thief shows the certificate of key 1 but signs with key 3.
#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    let (real, thief) = (identity(1), key(3));
    let theirs = rustls::sign::CertifiedKey::new(
        vec![certificate_of(&real).await],
        rustls::crypto::ring::sign::any_eddsa_type(&pkcs8(&thief)).unwrap(),
    );
    let server =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(theirs)));
    let client = client_config(None, key(1).public(), &[]).unwrap();
    let (got, _) = meet(client, Arc::new(server)).await;
    assert!(
        got.unwrap_err()
            .to_string()
            .to_lowercase()
            .contains("signature")
    );
}

/// As any passer-by gets it: from a handshake.
async fn certificate_of(identity: &Identity) -> rustls::pki_types::CertificateDer<'static> {
    let server = server_config(identity, &[], ClientAuth::None).unwrap();
    let client = client_config(None, identity.public(), &[]).unwrap();
    let (a, b) = duplex(16 << 10);
    let (client, _server) = tokio::join!(connect(a, client), accept(b, server));
    client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone()
}

fn pkcs8(key: &PrivateKey) -> rustls::pki_types::PrivatePkcs8KeyDer<'static> {
    let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    der.extend_from_slice(key.as_bytes());
    der.into()
}

#[tokio::test]
async fn every_handshake_is_a_full_one() {
    let server = server_config(&identity(1), &[], ClientAuth::Required).unwrap();
    let client = client_config(Some(&identity(2)), key(1).public(), &[]).unwrap();
    for _ in 0..3 {
        let (got, met) = meet(client.clone(), server.clone()).await;
        assert_eq!(got.unwrap(), 2);
        assert_eq!(met.unwrap().kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let server = server_config(&identity(1), &[], ClientAuth::None).unwrap();
    let roots = rustls::RootCertStore::empty();
    let client =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let (got, met) = meet(Arc::new(client), server).await;
    assert!(got.unwrap_err().to_string().contains("ProtocolVersion"));
    assert!(met.unwrap_err().to_string().contains("incompatible"));
}

/// Dates in the certificate have long passed, or lie ahead: only the key counts.
#[tokio::test]
async fn dates_do_not_matter() {
    for (from, to) in [(1990, 1991), (3000, 3001)] {
        let pair =
            rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8(&key(1)), &rcgen::PKCS_ED25519)
                .unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["other.example".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let certificate = params.self_signed(&pair).unwrap().der().clone();
        let server =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], pkcs8(&key(1)).into())
                .unwrap();
        let client = client_config(None, key(1).public(), &[]).unwrap();
        assert_eq!(meet(client, Arc::new(server)).await.0.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_certificate_with_another_kind_of_key_is_refused() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(vec!["holdfast".into()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap().der().clone();
    assert_eq!(holdfast_tls::spki_key(&certificate), None);
}
