//! The seed: one TOML file that turns a flashed image into a node (decision 13, format 1).

pub mod compact;
mod install;
mod wifi;

pub use install::{Bus, Choose, SeedInstall};
pub use wifi::{Country, Passphrase, SeedWifi, Ssid, WifiNetwork};

use crate::cluster::ClusterId;
use crate::documents::Roots;
use crate::keys::{PrivateKey, PublicKey};
use crate::names::{ClusterName, GrantId, NodeName, Role};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The only format there is so far.
pub const VERSION: u32 = 1;
/// The file's name on `hf-seed` and other volumes.
pub const FILE_NAME: &str = "seed.toml";
/// QEMU's `fw_cfg` name.
pub const FW_CFG_NAME: &str = "opt/holdfast/seed";
/// Longest seed that is read, in bytes.
pub const MAX_LEN: usize = 256 * 1024;

/// Why a seed was refused. Never holds the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// Not TOML, an unknown field, a wrong type: where and what.
    #[error("line {line}: {message}")]
    Parse {
        /// 1-based; 0 when the parser gave no place.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// Longer than any seed.
    #[error("{0} bytes are too long for a seed (at most {MAX_LEN})")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("not UTF-8 text: byte {0} is no part of a character")]
    NotText(usize),
    /// A later format.
    #[error(
        "version = {0}: this image reads version {VERSION} only; flash a newer image or make the seed anew"
    )]
    Version(u32),
    /// Cloud-init's configuration, where a seed was looked for.
    #[error(
        "this is cloud-init's user-data (it begins with {0:?}), and a Holdfast seed is expected: the TOML file that `holdfast seed new` writes"
    )]
    CloudInit(String),
    /// A line of [`compact`] that cannot be read.
    #[error("it begins as a Holdfast seed in short form, but {0}")]
    Compact(String),
    /// Fields that do not fit together.
    #[error("{field}: {message}")]
    Field {
        /// The field.
        field: &'static str,
        /// What would be right.
        message: String,
    },
}

/// A lighthouse as the seed pins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table: [[lighthouses]] with https and key"
)]
pub struct SeedLighthouse {
    /// `host:port` of its HTTPS API, tried in order.
    pub https: Vec<String>,
    /// The key that its certificate must carry.
    pub key: PublicKey,
}

/// A network configuration that needs no DHCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [network]")]
pub struct SeedNetwork {
    /// The interface; none: the first with a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Static addresses with prefix; none: DHCP and router advertisements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// Default gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// SNTP servers, `host` or `host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<String>,
}

/// What the seed says of k3s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [k3s]")]
pub struct SeedK3s {
    /// `key=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// `key=value:Effect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
}

/// A checked seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Format of the file: 1.
    pub version: u32,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The cluster's id.
    pub cluster_id: ClusterId,
    /// Whether the cluster's pods and services are dual-stack.
    #[serde(default)]
    pub dual_stack: bool,
    /// The node's name; none: made from its key, where the grant leaves it free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
    /// Its role; must be the grant's.
    pub role: Role,
    /// Unix seconds when the seed was made: a floor for the node's clock.
    pub issued: u64,
    /// The grant that the token belongs to.
    pub grant: GrantId,
    /// The token's private half.
    pub token: PrivateKey,
    /// Public halves of the cluster's root keys.
    pub roots: Vec<PublicKey>,
    /// Where to join; tried in order, for ever.
    pub lighthouses: Vec<SeedLighthouse>,
    /// Network, where DHCP will not do.
    #[serde(default)]
    pub network: SeedNetwork,
    /// k3s.
    #[serde(default)]
    pub k3s: SeedK3s,
    /// Makes a joined node join anew, with a token not used before.
    #[serde(default)]
    pub rejoin: bool,
    /// The board it is for; another board's node refuses it. None: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// Wi-Fi, beside Ethernet or in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<SeedWifi>,
    /// Makes the machine that boots this disk an installer: it installs on another disk instead
    /// of joining, and hands the seed without this table on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<SeedInstall>,
}

impl Seed {
    /// Reads a seed as found on a volume.
    ///
    /// # Errors
    /// [`SeedError`] says what, and where.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SeedError> {
        if bytes.len() > MAX_LEN {
            return Err(SeedError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| SeedError::NotText(e.valid_up_to()))?;
        Self::parse(text)
    }

    /// Reads a seed.
    ///
    /// # Errors
    /// [`SeedError`] says what, and where.
    pub fn parse(text: &str) -> Result<Self, SeedError> {
        if let Some(begins) = cloud_init(text) {
            return Err(SeedError::CloudInit(begins.into()));
        }
        let seed: Self = toml::from_str(text).map_err(|e| SeedError::Parse {
            line: e
                .span()
                .map_or(0, |s| 1 + text[..s.start].matches('\n').count()),
            message: e.message().to_string(),
        })?;
        if seed.version != VERSION {
            return Err(SeedError::Version(seed.version));
        }
        let field = |field, message: &str| SeedError::Field {
            field,
            message: message.into(),
        };
        if seed.roots.is_empty() || seed.roots.len() > 4 {
            return Err(field("roots", "one to four root keys are needed"));
        }
        if seed.lighthouses.is_empty() {
            return Err(field(
                "lighthouses",
                "at least one [[lighthouses]] with https and key is needed",
            ));
        }
        if seed.lighthouses.iter().any(|l| l.https.is_empty()) {
            return Err(field(
                "lighthouses.https",
                "at least one \"host:port\" is needed",
            ));
        }
        if let Some(bad) = seed
            .lighthouses
            .iter()
            .flat_map(|l| &l.https)
            .find(|a| !is_host_port(a))
        {
            return Err(SeedError::Field {
                field: "lighthouses.https",
                message: format!("{bad:?} is not \"host:port\""),
            });
        }
        if !seed.network.addresses.is_empty() && seed.network.gateways.is_empty() {
            return Err(field("network.gateways", "static addresses need a gateway"));
        }
        if seed.wifi.as_ref().is_some_and(|w| w.networks.is_empty()) {
            return Err(field(
                "wifi.networks",
                "at least one [[wifi.networks]] with ssid is needed",
            ));
        }
        if let Some(SeedInstall {
            min_gb: Some(min),
            max_gb: Some(max),
            ..
        }) = &seed.install
            && min > max
        {
            return Err(field("install.min_gb", "is more than max_gb: no disk fits"));
        }
        Ok(seed)
    }

    /// The file's text.
    ///
    /// # Errors
    /// When a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The roots as the documents' checks want them.
    #[must_use]
    pub fn roots(&self) -> Roots {
        Roots(self.roots.clone())
    }
}

/// What cloud-init's own kinds of user-data begin with (its documentation, "User-data formats").
const CLOUD_INIT: [&str; 8] = [
    "#cloud-config",
    "#!",
    "#include",
    "#part-handler",
    "#cloud-boothook",
    "#upstart-job",
    "## template: jinja",
    "Content-Type: multipart",
];

/// What `text` begins with, if that is one of cloud-init's own formats.
fn cloud_init(text: &str) -> Option<&'static str> {
    CLOUD_INIT.into_iter().find(|kind| text.starts_with(kind))
}

/// How many cases the random tests of what reads seeds run: `HOLDFAST_FUZZ_CASES`, else 256.
#[cfg(test)]
pub(crate) fn cases() -> proptest::test_runner::Config {
    let cases = std::env::var("HOLDFAST_FUZZ_CASES").ok();
    proptest::test_runner::Config::with_cases(cases.and_then(|n| n.parse().ok()).unwrap_or(256))
}

/// Whether `text` is `host:port` with a port from 1 to 65535 (IPv6 hosts in brackets).
#[must_use]
pub fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host_ok = match bare {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains(':'),
        };
        host_ok && port.parse::<u16>().is_ok_and(|p| p != 0)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn seed() -> Seed {
        let mut seed = Seed::parse(include_str!("example.toml")).unwrap();
        seed.name = Some("n1".parse().unwrap());
        seed.role = Role::Server;
        seed
    }

    fn good() -> String {
        seed().to_toml().unwrap()
    }

    #[test]
    fn cloud_inits_user_data_is_told_from_a_seed() {
        for text in [
            "#cloud-config\nhostname: n1\n",
            "#!/bin/sh\ntrue\n",
            "## template: jinja\n#cloud-config\n",
        ] {
            let error = Seed::parse(text).unwrap_err();
            assert!(matches!(error, SeedError::CloudInit(_)), "{error}");
            assert!(error.to_string().contains("holdfast seed new"), "{error}");
        }
        assert!(Seed::parse(&format!("# a comment\n{}", good())).is_ok());
    }

    #[test]
    fn reads_what_it_writes() {
        let seed = Seed::parse(&good()).unwrap();
        assert_eq!(seed.name.unwrap().as_str(), "n1");
        assert_eq!(seed.lighthouses[0].https[0], "10.0.2.2:8443");
    }

    #[test]
    fn names_the_line_of_an_unknown_field_and_of_a_wrong_type() {
        let text = good().replacen("version", "colour = 1\nversion", 1);
        assert!(
            matches!(Seed::parse(&text), Err(SeedError::Parse { line: 1, message }) if message.contains("colour"))
        );
        let text = good().replacen("issued = 1700000000", "issued = \"now\"", 1);
        let err = Seed::parse(&text).unwrap_err();
        assert!(
            matches!(&err, SeedError::Parse { line, .. } if *line > 1),
            "{err}"
        );
    }

    #[test]
    fn never_repeats_a_broken_token() {
        let key = PrivateKey::from_bytes([1; 32]).to_text();
        let text = good().replacen(&format!("token = \"{key}\""), "token = \"sesame\"", 1);
        let err = Seed::parse(&text).unwrap_err().to_string();
        assert!(!err.contains("sesame"), "{err}");
    }

    #[test]
    fn refuses_nonsense() {
        assert!(matches!(
            Seed::from_bytes(&[0xff, 0xfe]),
            Err(SeedError::NotText(0))
        ));
        assert!(matches!(
            Seed::from_bytes(&vec![b' '; MAX_LEN + 1]),
            Err(SeedError::TooLong(_))
        ));
        assert!(matches!(Seed::parse("hello"), Err(SeedError::Parse { .. })));
        let text = good().replacen("version = 1", "version = 2", 1);
        assert_eq!(Seed::parse(&text).unwrap_err(), SeedError::Version(2));
        let text = good().replace("10.0.2.2:8443", "10.0.2.2");
        assert!(matches!(Seed::parse(&text), Err(SeedError::Field { .. })));
    }

    #[test]
    fn tables_for_wifi_and_installing() {
        let text = good()
            + "[wifi]\ncountry = \"DE\"\n[[wifi.networks]]\nssid = \"home\"\npassphrase = \"correct horse\"\n\
               [install]\nbus = [\"nvme\"]\nchoose = \"smallest\"\n";
        let seed = Seed::parse(&text).unwrap();
        let again = Seed::parse(&seed.to_toml().unwrap()).unwrap();
        assert_eq!((again.wifi, again.install), (seed.wifi, seed.install));
        for (from, to, words) in [
            ("correct horse", "short", "8 to 63"),
            ("\"DE\"", "\"de\"", "two capital letters"),
            ("\"nvme\"", "\"floppy\"", "`nvme`"),
            (
                "choose =",
                "min_gb = 9\nmax_gb = 8\nchoose =",
                "no disk fits",
            ),
        ] {
            let error = Seed::parse(&text.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn host_port() {
        for ok in ["a:1", "[::1]:65535", "10.0.0.1:443"] {
            assert!(is_host_port(ok), "{ok}");
        }
        for bad in ["a", "a:0", ":1", "::1:443", "a:65536", "[x]:1"] {
            assert!(!is_host_port(bad), "{bad}");
        }
    }
}
