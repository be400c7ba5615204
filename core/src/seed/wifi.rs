//! Wi-Fi in the seed: the networks that a node may use, and where it stands.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A regulatory domain: two letters (ISO 3166-1 alpha-2), as `iw reg set` takes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Country(String);

impl Country {
    /// The two letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Country {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            true => Ok(Self(text)),
            false => Err(format!(
                "{text:?} is no country: two capital letters are needed, such as \"DE\""
            )),
        }
    }
}

impl std::str::FromStr for Country {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Country> for String {
    fn from(country: Country) -> Self {
        country.0
    }
}

/// A network's name: 1 to 32 bytes (IEEE 802.11, 9.4.2.2); here UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ssid(String);

impl Ssid {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Ssid {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match (1..=32).contains(&text.len()) && !text.chars().any(char::is_control) {
            true => Ok(Self(text)),
            false => Err(format!(
                "{text:?} is no network name: 1 to 32 bytes without control characters are needed"
            )),
        }
    }
}

impl std::str::FromStr for Ssid {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Ssid> for String {
    fn from(ssid: Ssid) -> Self {
        ssid.0
    }
}

/// A passphrase of 8 to 63 printable ASCII characters, or 64 hex digits (WPA2, WPA3). Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Passphrase(String);

impl Passphrase {
    /// The secret itself.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether it is the key itself, in hex, rather than a passphrase.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.0.len() == 64
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl TryFrom<String> for Passphrase {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        let key = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match key || (printable && (8..=63).contains(&text.len())) {
            true => Ok(Self(text)),
            // Never the value: it may be a secret with a slip in it.
            false => {
                Err("a passphrase has 8 to 63 printable ASCII characters, or 64 hex digits".into())
            }
        }
    }
}

impl std::str::FromStr for Passphrase {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<Passphrase> for String {
    fn from(passphrase: Passphrase) -> Self {
        passphrase.0
    }
}

/// A network that the node may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [[wifi.networks]] with ssid"
)]
pub struct WifiNetwork {
    /// Its name.
    pub ssid: Ssid,
    /// Its passphrase; none: an open network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Passphrase>,
    /// It does not announce its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// The `[wifi]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [wifi] with country and networks"
)]
pub struct SeedWifi {
    /// Where the node stands: decides channels and power.
    pub country: Country,
    /// In the order of preference; at least one.
    pub networks: Vec<WifiNetwork>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_radio_takes_is_taken() {
        assert!("DE".parse::<Country>().is_ok());
        for bad in ["de", "D", "DEU", "D1", "Ä"] {
            assert!(bad.parse::<Country>().is_err(), "{bad}");
        }
        assert!("Büro 5 GHz".parse::<Ssid>().is_ok());
        for bad in ["", "a\nb", "123456789012345678901234567890123"] {
            assert!(bad.parse::<Ssid>().is_err(), "{bad}");
        }
        assert!(!"correct horse".parse::<Passphrase>().unwrap().is_key());
        assert!("ab".repeat(32).parse::<Passphrase>().unwrap().is_key());
        for bad in ["short", &"x".repeat(64), "with\nnewline", "umläute"] {
            let error = bad.parse::<Passphrase>().unwrap_err();
            assert!(!error.contains(bad), "{error}");
        }
        let secret = "sesame-sesame".parse::<Passphrase>().unwrap();
        assert!(!format!("{secret:?}").contains("sesame"));
    }
}
