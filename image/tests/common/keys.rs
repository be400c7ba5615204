//! An archive's keys, made for a test.

use std::{path::PathBuf, time::SystemTime};

use pgp::{
    composed::{
        ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
        SignedSecretKey, SubkeyParamsBuilder,
    },
    crypto::hash::HashAlgorithm,
    packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData},
    ser::Serialize as _,
    types::{KeyDetails as _, Password, Timestamp},
};
use rand::thread_rng;

/// Like Debian's: a primary key that certifies, a subkey that signs.
pub struct ArchiveKey {
    secret: SignedSecretKey,
    pub public: SignedPublicKey,
}

impl ArchiveKey {
    pub fn new() -> Self {
        let signing = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .build()
            .unwrap();
        let mut parameters = SecretKeyParamsBuilder::default();
        parameters
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .primary_user_id("Archive of a test".into())
            .subkey(signing);
        let secret = parameters.build().unwrap().generate(thread_rng()).unwrap();
        let public = SignedPublicKey::from(secret.clone());
        Self { secret, public }
    }

    /// `text`, clear-signed by the subkey.
    pub fn sign(&self, text: &str) -> String {
        let key = &self.secret.secret_subkeys[0].key;
        CleartextSignedMessage::sign(thread_rng(), text, key, &Password::empty())
            .unwrap()
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }

    /// `text`, clear-signed with a signature that ends after `seconds`.
    pub fn sign_for(&self, text: &str, seconds: u32) -> String {
        let key = &self.secret.secret_subkeys[0].key;
        let mut config = SignatureConfig::from_key(thread_rng(), key, SignatureType::Text).unwrap();
        config.hashed_subpackets = packets([
            SubpacketData::SignatureCreationTime(Timestamp::now()),
            SubpacketData::SignatureExpirationTime(pgp::types::Duration::from_secs(seconds)),
            SubpacketData::IssuerFingerprint(key.fingerprint()),
        ]);
        CleartextSignedMessage::new(text, config, key, &Password::empty())
            .unwrap()
            .to_armored_string(ArmorOptions::default())
            .unwrap()
    }

    /// The archive says that the key lives `seconds` from when it was made.
    pub fn expire_after(&mut self, seconds: u32) {
        // Newer than the signature that came with the key: the newest counts.
        let later = Timestamp::from_secs(Timestamp::now().as_secs() + 1);
        let signature = self.about_itself(
            SignatureType::Key,
            [
                SubpacketData::SignatureCreationTime(later),
                SubpacketData::KeyExpirationTime(pgp::types::Duration::from_secs(seconds)),
            ],
        );
        self.public.details.direct_signatures.push(signature);
    }

    /// The archive revokes its key.
    pub fn revoke(&mut self) {
        let now = SubpacketData::SignatureCreationTime(Timestamp::now());
        let signature = self.about_itself(SignatureType::KeyRevocation, [now]);
        self.public.details.revocation_signatures.push(signature);
    }

    fn about_itself<const N: usize>(
        &self,
        kind: SignatureType,
        about: [SubpacketData; N],
    ) -> pgp::packet::Signature {
        let key = &self.secret.primary_key;
        let mut config = SignatureConfig::v4(kind, key.algorithm(), HashAlgorithm::Sha256);
        config.hashed_subpackets = packets(about);
        config
            .sign_key(key, &Password::empty(), key.public_key())
            .unwrap()
    }

    /// A keyring file with this key.
    pub fn keyring(&self, dir: &std::path::Path) -> PathBuf {
        let path = dir.join("archive.gpg");
        std::fs::write(&path, self.public.to_bytes().unwrap()).unwrap();
        path
    }
}

fn packets<const N: usize>(data: [SubpacketData; N]) -> Vec<Subpacket> {
    data.into_iter()
        .map(|d| Subpacket::regular(d).unwrap())
        .collect()
}

/// `hours` from now.
pub fn hours_later(hours: u64) -> SystemTime {
    SystemTime::now() + std::time::Duration::from_secs(hours * 3600)
}
