//! OpenPGP keys of the archive, and which of their signatures count.
//!
//! rPGP checks mathematics; whether a key may sign, has expired or was revoked (RFC 9580,
//! sections 5.2.3 and 10.1) is checked here.

use std::{path::Path, time::SystemTime};

use pgp::{
    composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureType},
    types::{KeyDetails, Tag},
};

use crate::error::{Error, IoContext, Result};

/// Where Debian's package `debian-archive-keyring` puts its keys.
pub const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The keys that may sign an archive's index.
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

impl Keyring {
    /// Reads a binary keyring.
    ///
    /// # Errors
    /// When it is missing (with the package that brings it) or holds no key.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(Error::Signature {
                what: path.display().to_string(),
                reason:
                    "the archive keyring is missing: `apt-get install debian-archive-keyring`, \
                         or give another one with --keyring"
                        .into(),
            });
        }
        Self::parse(
            &std::fs::read(path).at("read", path)?,
            &path.display().to_string(),
        )
    }

    fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let bad = |reason: String| Error::Signature {
            what: name.to_owned(),
            reason,
        };
        let keys = SignedPublicKey::from_bytes_many(bytes)
            .map_err(|e| bad(e.to_string()))?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(format!("not an OpenPGP keyring: {e}")))?;
        if keys.is_empty() {
            return Err(bad("holds no key".into()));
        }
        Ok(Self { keys })
    }

    /// Checks a clear-signed file and returns the text that was signed.
    ///
    /// # Errors
    /// When no signature is one by a key of this ring that may sign `now`.
    pub fn verify(&self, what: &str, message: &str, now: SystemTime) -> Result<String> {
        let bad = |reason: String| Error::Signature {
            what: what.to_owned(),
            reason,
        };
        let (signed, _) = CleartextSignedMessage::from_string(message)
            .map_err(|e| bad(format!("not a clear-signed file: {e}")))?;
        let text = signed.signed_text();
        let now = seconds(now);
        let mut reasons = Vec::new();
        for signature in signed.signatures() {
            match self.check(signature, text.as_bytes(), now) {
                Ok(()) => return Ok(text),
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            reasons.push("it carries no signature".into());
        }
        Err(bad(reasons.join("; ")))
    }

    fn check(&self, signature: &Signature, text: &[u8], now: u64) -> Result<(), String> {
        if signature.typ() != Some(SignatureType::Text)
            && signature.typ() != Some(SignatureType::Binary)
        {
            return Err("a signature is not over a document".into());
        }
        if !matches!(
            signature.hash_alg(),
            Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
        ) {
            return Err("a signature uses a weak hash".into());
        }
        within(signature, now)?;
        let mut reason = "a signature is by a key that is not in the keyring".to_owned();
        for key in &self.keys {
            let mut tried = |verified: bool, usable: Result<(), String>| match (verified, usable) {
                (true, Ok(())) => true,
                (true, Err(why)) => {
                    reason = format!("key {}: {why}", key.fingerprint());
                    false
                }
                (false, _) => false,
            };
            if tried(
                signature.verify(&key.primary_key, text).is_ok(),
                primary_usable(key, now),
            ) {
                return Ok(());
            }
            for sub in &key.public_subkeys {
                let verified = signature.verify(&sub.key, text).is_ok();
                if tried(
                    verified,
                    primary_usable(key, now).and_then(|()| subkey_usable(key, sub, now)),
                ) {
                    return Ok(());
                }
            }
        }
        Err(reason)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// A signature that is made in the future (a day of slack for clocks) or has ended counts not.
fn within(signature: &Signature, now: u64) -> Result<(), String> {
    let made = signature.created().map_or(0, |t| u64::from(t.as_secs()));
    if made > now + 86_400 {
        return Err("a signature was made in the future: is this machine's clock right?".into());
    }
    match signature
        .signature_expiration_time()
        .map(|d| u64::from(d.as_secs()))
    {
        Some(life) if life != 0 && made + life < now => Err("a signature has expired".into()),
        _ => Ok(()),
    }
}

fn alive(made: u64, signature: &Signature, now: u64) -> Result<(), String> {
    match signature
        .key_expiration_time()
        .map(|d| u64::from(d.as_secs()))
    {
        Some(life) if life != 0 && made + life < now => {
            Err("it has expired: update the package debian-archive-keyring".into())
        }
        _ => Ok(()),
    }
}

/// The primary key is not revoked, and its newest valid self-signature says that it lives.
fn primary_usable(key: &SignedPublicKey, now: u64) -> Result<(), String> {
    let primary = &key.primary_key;
    if key
        .details
        .revocation_signatures
        .iter()
        .any(|s| s.verify_key(primary).is_ok())
    {
        return Err("it was revoked".into());
    }
    let direct = key
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.verify_key(primary).is_ok());
    let users = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|s| {
            s.is_certification()
                && s.verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let newest = direct
        .chain(users)
        .max_by_key(|s| s.created().map_or(0, |t| t.as_secs()))
        .ok_or("it has no valid self-signature")?;
    alive(u64::from(primary.created_at().as_secs()), newest, now)
}

/// The subkey is bound to its primary for signing (cross-signed), alive and not revoked.
fn subkey_usable(key: &SignedPublicKey, sub: &SignedPublicSubKey, now: u64) -> Result<(), String> {
    let valid = |kind| {
        sub.signatures.iter().filter(move |s| {
            s.typ() == Some(kind) && s.verify_subkey_binding(&key.primary_key, &sub.key).is_ok()
        })
    };
    if valid(SignatureType::SubkeyRevocation).next().is_some() {
        return Err("its signing subkey was revoked".into());
    }
    let binding = valid(SignatureType::SubkeyBinding)
        .max_by_key(|s| s.created().map_or(0, |t| t.as_secs()))
        .ok_or("its signing subkey is not bound to it")?;
    let cross = binding.embedded_signature().is_some_and(|s| {
        s.verify_primary_key_binding(&sub.key, &key.primary_key)
            .is_ok()
    });
    if !binding.key_flags().sign() || !cross {
        return Err("its subkey may not sign".into());
    }
    within(binding, now)?;
    alive(u64::from(sub.key.created_at().as_secs()), binding, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_is_not_just_any_file() {
        assert!(Keyring::parse(b"", "x").is_err());
        assert!(Keyring::parse(b"hello, world", "x").is_err());
        let missing = Keyring::read(Path::new("/nonexistent/keyring.gpg"))
            .err()
            .unwrap()
            .to_string();
        assert!(missing.contains("debian-archive-keyring"), "{missing}");
    }
}
