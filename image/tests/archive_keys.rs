//! Whose word on the archive's index counts.

#[path = "common/keys.rs"]
mod keys;

use std::time::SystemTime;

use holdfast_image::archive::keyring::Keyring;
use keys::{ArchiveKey, hours_later};

const INDEX: &str = "Suite: stable\nCodename: trixie\n- a line that begins with a dash\n";

/// What the builder says of `message` at `now`, when it trusts `key` alone.
fn verdict(key: &ArchiveKey, message: &str, now: SystemTime) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::read(&key.keyring(dir.path())).unwrap();
    keyring
        .verify("dists/trixie/InRelease", message, now)
        .map_err(|e| e.to_string())
}

#[track_caller]
fn refused(verdict: Result<String, String>, why: &str) {
    let said = verdict.expect_err("should be refused");
    assert!(
        said.starts_with("dists/trixie/InRelease is not signed by the archive: ")
            && said.contains(why),
        "{said}"
    );
}

#[test]
fn the_archives_own_signature_counts() {
    let key = ArchiveKey::new();
    let text = verdict(&key, &key.sign(INDEX), SystemTime::now()).unwrap();
    assert_eq!(text.replace("\r\n", "\n").trim_end(), INDEX.trim_end());
}

#[test]
fn a_changed_text_is_refused() {
    let key = ArchiveKey::new();
    let forged = key.sign(INDEX).replace("trixie", "trixiE");
    // No key's mathematics fits, so nobody in the keyring signed this text.
    refused(
        verdict(&key, &forged, SystemTime::now()),
        "not in the keyring",
    );
}

#[test]
fn a_strangers_signature_is_refused() {
    let forged = ArchiveKey::new().sign(INDEX);
    refused(
        verdict(&ArchiveKey::new(), &forged, SystemTime::now()),
        "not in the keyring",
    );
}

#[test]
fn no_signature_is_refused() {
    refused(
        verdict(&ArchiveKey::new(), INDEX, SystemTime::now()),
        "not a clear-signed file",
    );
}

#[test]
fn an_expired_key_is_refused() {
    let mut key = ArchiveKey::new();
    key.expire_after(1800);
    let message = key.sign(INDEX);
    assert!(verdict(&key, &message, SystemTime::now()).is_ok());
    refused(verdict(&key, &message, hours_later(1)), "it has expired");
}

#[test]
fn an_expired_signature_is_refused() {
    let key = ArchiveKey::new();
    let message = key.sign_for(INDEX, 1800);
    assert!(verdict(&key, &message, SystemTime::now()).is_ok());
    refused(
        verdict(&key, &message, hours_later(1)),
        "a signature has expired",
    );
}

#[test]
fn a_revoked_key_is_refused() {
    let mut key = ArchiveKey::new();
    let message = key.sign(INDEX);
    assert!(verdict(&key, &message, SystemTime::now()).is_ok());
    key.revoke();
    refused(verdict(&key, &message, SystemTime::now()), "it was revoked");
}

#[test]
fn a_subkey_that_the_archive_did_not_bind_is_refused() {
    let stranger = ArchiveKey::new();
    let mut key = ArchiveKey::new();
    // A keyring into which somebody slipped a subkey of their own: its binding is by another key.
    key.public
        .public_subkeys
        .extend(stranger.public.public_subkeys.iter().cloned());
    refused(
        verdict(&key, &stranger.sign(INDEX), SystemTime::now()),
        "not bound to it",
    );
}

#[test]
fn a_signature_from_the_future_is_refused() {
    let key = ArchiveKey::new();
    let earlier = SystemTime::now() - std::time::Duration::from_secs(3 * 86_400);
    refused(
        verdict(&key, &key.sign(INDEX), earlier),
        "this machine's clock",
    );
}
