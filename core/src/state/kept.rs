//! What a node keeps of its seed. A seed refuses what it does not know; the state must not, so that an
//! older image reads what a later one wrote, and writes it back.

use super::Extra;
use crate::keys::PublicKey;
use crate::seed::{
    Country, Passphrase, SeedK3s, SeedLighthouse, SeedNetwork, SeedWifi, Ssid, WifiNetwork,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A lighthouse as the seed named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lighthouse {
    /// `host:port` of its HTTPS API, tried in order.
    pub https: Vec<String>,
    /// The key that its certificate must carry.
    pub key: PublicKey,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

impl From<&SeedLighthouse> for Lighthouse {
    fn from(seed: &SeedLighthouse) -> Self {
        Self {
            https: seed.https.clone(),
            key: seed.key,
            other: Extra::default(),
        }
    }
}

/// Network settings; the fields mean what those of [`SeedNetwork`] do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Static addresses with prefix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// Default gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// SNTP servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<String>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

impl From<&SeedNetwork> for Network {
    fn from(seed: &SeedNetwork) -> Self {
        let SeedNetwork {
            interface,
            addresses,
            gateways,
            dns,
            ntp,
        } = seed.clone();
        Self {
            interface,
            addresses,
            gateways,
            dns,
            ntp,
            other: Extra::default(),
        }
    }
}

impl From<&Network> for SeedNetwork {
    fn from(kept: &Network) -> Self {
        let kept = kept.clone();
        Self {
            interface: kept.interface,
            addresses: kept.addresses,
            gateways: kept.gateways,
            dns: kept.dns,
            ntp: kept.ntp,
        }
    }
}

/// What the seed said of k3s.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct K3s {
    /// `key=value`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// `key=value:Effect`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

impl From<&SeedK3s> for K3s {
    fn from(seed: &SeedK3s) -> Self {
        Self {
            labels: seed.labels.clone(),
            taints: seed.taints.clone(),
            other: Extra::default(),
        }
    }
}

/// Wi-Fi, passphrases included.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wifi {
    /// Where the node stands.
    pub country: Country,
    /// In the order of preference.
    pub networks: Vec<KnownNetwork>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

/// A Wi-Fi network that the node may use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KnownNetwork {
    /// Its name.
    pub ssid: Ssid,
    /// Its passphrase; none: an open network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Passphrase>,
    /// It does not announce its name.
    #[serde(default)]
    pub hidden: bool,
    /// What a later version wrote.
    #[serde(flatten)]
    pub other: Extra,
}

impl From<&SeedWifi> for Wifi {
    fn from(seed: &SeedWifi) -> Self {
        let keep = |n: &WifiNetwork| KnownNetwork {
            ssid: n.ssid.clone(),
            passphrase: n.passphrase.clone(),
            hidden: n.hidden,
            other: Extra::default(),
        };
        Self {
            country: seed.country.clone(),
            networks: seed.networks.iter().map(keep).collect(),
            other: Extra::default(),
        }
    }
}

impl From<&Wifi> for SeedWifi {
    fn from(kept: &Wifi) -> Self {
        let tell = |n: &KnownNetwork| WifiNetwork {
            ssid: n.ssid.clone(),
            passphrase: n.passphrase.clone(),
            hidden: n.hidden,
        };
        Self {
            country: kept.country.clone(),
            networks: kept.networks.iter().map(tell).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json, to_value};

    #[test]
    fn wifi_is_kept_whole_and_a_later_versions_fields_with_it() {
        let text = r#"{"country":"DE","networks":[{"ssid":"home","passphrase":"correct horse",
            "band":"5"},{"ssid":"open","hidden":true}],"roaming":true}"#;
        let kept: Wifi = serde_json::from_str(text).unwrap();
        let back: Value = to_value(&kept).unwrap();
        assert_eq!(back["networks"][0]["band"], "5");
        assert_eq!(back["roaming"], true);
        let seed = SeedWifi::from(&kept);
        assert_eq!(SeedWifi::from(&Wifi::from(&seed)), seed);
        assert_eq!(back["networks"][0]["passphrase"], "correct horse");
        assert!(seed.networks[1].hidden && seed.networks[1].passphrase.is_none());
        assert!(!format!("{kept:?}").contains("horse"));
    }

    #[test]
    fn a_later_versions_fields_are_kept_in_each() {
        let key = crate::keys::PrivateKey::from_bytes([1; 32]).public();
        let network: Network =
            from_value(json!({"interface": "eth0", "dns": ["9.9.9.9"], "mtu": 1400})).unwrap();
        let k3s: K3s = from_value(json!({"labels": ["a=b"], "version": "x"})).unwrap();
        let lighthouse: Lighthouse =
            from_value(json!({"https": ["a:1"], "key": key, "name": "one"})).unwrap();
        assert_eq!(to_value(&network).unwrap()["mtu"], 1400);
        assert_eq!(to_value(&k3s).unwrap()["version"], "x");
        assert_eq!(to_value(&lighthouse).unwrap()["name"], "one");
        let seed = SeedNetwork::from(&network);
        assert_eq!(SeedNetwork::from(&Network::from(&seed)), seed);
        assert_eq!(seed.interface.as_deref(), Some("eth0"));
    }
}
