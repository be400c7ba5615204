//! An API token.

use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// `USER@REALM!ID=SECRET`; never shown.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// Why a text is no token; never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no API token: USER@REALM!ID=SECRET is expected, for example operator@pve!holdfast=01234567-89ab-…"
)]
pub struct BadToken;

impl FromStr for Token {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let (id, secret) = text.split_once('=').ok_or(BadToken)?;
        let (user, name) = id.split_once('!').ok_or(BadToken)?;
        let (login, realm) = user.rsplit_once('@').ok_or(BadToken)?;
        let printable = text.chars().all(|c| c.is_ascii_graphic());
        if !printable || [login, realm, name, secret].iter().any(|p| p.is_empty()) {
            return Err(BadToken);
        }
        Ok(Self(Zeroizing::new(text.into())))
    }
}

impl Token {
    /// Whose it is, without the secret.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split('=').next().unwrap_or_default()
    }

    /// The value of the `Authorization` header.
    pub(crate) fn header(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("PVEAPIToken={}", &*self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_and_their_secret_is_not_told() {
        let token: Token = "op@pve!hf=12345678-secret\n".parse().unwrap();
        assert_eq!(token.id(), "op@pve!hf");
        assert_eq!(&*token.header(), "PVEAPIToken=op@pve!hf=12345678-secret");
        assert!(!format!("{token:?}").contains("secret"));
        for bad in [
            "",
            "op@pve",
            "op@pve!hf",
            "op!hf=x",
            "op@pve!hf=",
            "op@pve!hf=a b",
            "=@!",
        ] {
            let error = bad.parse::<Token>().unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(&format!("{bad:?}")));
        }
    }
}
