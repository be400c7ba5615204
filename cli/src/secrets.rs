//! Passphrases and the keys encrypted with them (age format, scrypt recipient).

use crate::exit::Exit;
use age::secrecy::{ExposeSecret as _, SecretString};
use anyhow::{Context as _, Result, bail};
use holdfast_core::keys::PrivateKey;
use std::cell::OnceCell;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;

/// scrypt's work factor as a power of two: 64 MiB and about 0.2 s each time a key is opened. Every
/// command opens one, so it is two steps below age's usual second; a longer passphrase makes up
/// for it, hence [`SHORTEST`].
const WORK_FACTOR: u8 = 16;
/// The highest work factor that is accepted when reading (1 GiB): a key file may be made elsewhere.
const WORK_FACTOR_MAX: u8 = 20;
/// The shortest new passphrase, in characters.
const SHORTEST: usize = 10;
/// Where a passphrase is taken from when nobody is asked.
pub const VARIABLE: &str = "HOLDFAST_PASSPHRASE";

/// Asks for the passphrase at most once in a command.
pub struct Passphrase {
    fd: Option<u32>,
    known: OnceCell<SecretString>,
}

impl Passphrase {
    /// Taken from descriptor `fd` if given, else from `HOLDFAST_PASSPHRASE`, else asked for.
    pub fn new(fd: Option<u32>) -> Self {
        Self {
            fd,
            known: OnceCell::new(),
        }
    }

    fn given(&self) -> Result<Option<SecretString>> {
        if let Some(fd) = self.fd {
            let path = format!("/dev/fd/{fd}");
            let file = std::fs::File::open(&path)
                .with_context(|| format!("--passphrase-fd {fd}: cannot read descriptor {fd}"))?;
            let mut line = String::new();
            std::io::BufReader::new(file)
                .read_line(&mut line)
                .with_context(|| format!("reading {path}"))?;
            return Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned().into()));
        }
        match std::env::var(VARIABLE) {
            Ok(text) => Ok(Some(text.into())),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => bail!("{VARIABLE} is not UTF-8 text"),
        }
    }

    fn ask(prompt: &str) -> Result<SecretString> {
        if !std::io::stdin().is_terminal() {
            return Err(Exit::Usage.error(format!(
                "a passphrase is needed and there is no terminal to ask for it: set {VARIABLE} or give --passphrase-fd N"
            )));
        }
        Ok(rpassword::prompt_password(prompt)
            .context("reading the passphrase")?
            .into())
    }

    /// The passphrase that the cluster's keys are encrypted with.
    fn get(&self) -> Result<&SecretString> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let secret = match self.given()? {
            Some(secret) => secret,
            None => Self::ask("Passphrase of the cluster's keys: ")?,
        };
        Ok(self.known.get_or_init(|| secret))
    }

    /// A new passphrase, asked for twice.
    ///
    /// # Errors
    /// When a typed one is too short, or the two differ. One that a program gives is taken as it is.
    pub fn choose(&self) -> Result<()> {
        let secret = match self.given()? {
            Some(secret) => secret,
            None => {
                let first = Self::ask("New passphrase for the cluster's keys: ")?;
                let again = Self::ask("The same once more: ")?;
                if first.expose_secret() != again.expose_secret() {
                    return Err(Exit::Usage.error("the two passphrases differ; nothing was made"));
                }
                if first.expose_secret().chars().count() < SHORTEST {
                    return Err(Exit::Usage.error(format!(
                        "the passphrase is shorter than {SHORTEST} characters; five or six random words are good"
                    )));
                }
                first
            }
        };
        self.known
            .set(secret)
            .map_err(|_| anyhow::anyhow!("the passphrase was chosen already"))
    }

    /// Writes `key` encrypted, readable by its owner only.
    pub fn seal(&self, path: &Path, key: &PrivateKey) -> Result<()> {
        let text = zeroize::Zeroizing::new(key.to_text());
        let bytes = self
            .encrypt(text.as_bytes())
            .with_context(|| format!("encrypting {}", path.display()))?;
        crate::files::write_secret(path, &bytes)
    }

    /// `bytes` as an age file.
    pub fn encrypt(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut recipient = age::scrypt::Recipient::new(self.get()?.clone());
        recipient.set_work_factor(WORK_FACTOR);
        Ok(age::encrypt(&recipient, bytes)?)
    }

    /// What the age file `bytes` holds; `path` is for the words of an error.
    pub fn decrypt(&self, path: &Path, bytes: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        let mut identity = age::scrypt::Identity::new(self.get()?.clone());
        identity.set_max_work_factor(WORK_FACTOR_MAX);
        age::decrypt(&identity, bytes)
            .map(zeroize::Zeroizing::new)
            .map_err(|e| match e {
                age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed => {
                    Exit::Refused.error(format!(
                        "{}: the passphrase does not open this file",
                        path.display()
                    ))
                }
                other => anyhow::anyhow!("{}: not a readable age file: {other}", path.display()),
            })
    }

    /// Reads an encrypted key.
    pub fn open(&self, path: &Path) -> Result<PrivateKey> {
        let bytes = std::fs::read(path).with_context(|| {
            format!(
                "cannot read the key {}: is this the cluster's own directory?",
                path.display()
            )
        })?;
        let text = self.decrypt(path, &bytes)?;
        let text = std::str::from_utf8(&text)
            .with_context(|| format!("{}: no key inside", path.display()))?;
        PrivateKey::from_text(text).with_context(|| format!("{}: no key inside", path.display()))
    }
}

/// 32 bytes of the system's random source as a key.
pub fn new_key() -> Result<PrivateKey> {
    Ok(PrivateKey::from_bytes(random()?))
}

/// Bytes of the system's random source.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| anyhow::anyhow!("the system's random source failed: {e}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Passphrase {
        let p = Passphrase::new(None);
        p.known.set(text.to_owned().into()).unwrap();
        p
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.age");
        let key = new_key().unwrap();
        known("correct horse battery").seal(&path, &key).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(44).any(|w| w == key.to_text().as_bytes()));
        assert_eq!(
            known("correct horse battery").open(&path).unwrap().public(),
            key.public()
        );
        let error = known("wrong").open(&path).unwrap_err();
        assert_eq!(crate::exit::code_of(&error), 4);
    }
}
