//! The seed's Wi-Fi as wpa_supplicant reads it (its `wpa_supplicant.conf`, release 2.10: one setting a
//! line, `#` begins a comment outside of double quotes, the last quote of a line ends a string).

use holdfast_core::keys::hex;
use holdfast_core::seed::{SeedWifi, WifiNetwork};
use std::fmt::Write as _;

/// The file's text. It has no control interface: nobody but its own file tells it anything.
pub fn text(wifi: &SeedWifi) -> String {
    // sae_pwe 2: WPA3 in both of its ways to derive the key.
    let mut out = format!("country={}\nsae_pwe=2\n", wifi.country.as_str());
    let count = wifi.networks.len();
    for (at, network) in wifi.networks.iter().enumerate() {
        block(&mut out, network, count - at);
    }
    out
}

fn block(out: &mut String, network: &WifiNetwork, priority: usize) {
    // In hex any byte is just a byte.
    let ssid = hex(network.ssid.as_str().as_bytes());
    let _ = writeln!(out, "network={{\n\tssid={ssid}\n\tpriority={priority}");
    if network.hidden {
        out.push_str("\tscan_ssid=1\n");
    }
    match &network.passphrase {
        None => out.push_str("\tkey_mgmt=NONE\n"),
        // WPA3 derives its key from a passphrase only.
        Some(key) if key.is_key() => {
            let _ = writeln!(
                out,
                "\tkey_mgmt=WPA-PSK\n\tieee80211w=1\n\tpsk={}",
                key.secret()
            );
        }
        Some(passphrase) => {
            let _ = writeln!(
                out,
                "\tkey_mgmt=WPA-PSK SAE\n\tieee80211w=1\n\tpsk=\"{}\"",
                passphrase.secret()
            );
        }
    }
    out.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wifi(networks: Vec<WifiNetwork>) -> SeedWifi {
        SeedWifi {
            country: "DE".parse().unwrap(),
            networks,
        }
    }

    fn network(ssid: &str, passphrase: Option<&str>) -> WifiNetwork {
        WifiNetwork {
            ssid: ssid.parse().unwrap(),
            passphrase: passphrase.map(|p| p.parse().unwrap()),
            hidden: false,
        }
    }

    /// A line as wpa_supplicant takes it: without its comment and the space around it.
    fn line(text: &str) -> Option<&str> {
        let text = text.trim_start();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let quoted = text
            .find('"')
            .and_then(|first| text[first + 1..].rfind('"').map(|last| first + 1 + last));
        let from = quoted.unwrap_or(0);
        let end = text[from..].find('#').map_or(text.len(), |at| from + at);
        Some(text[..end].trim_end())
    }

    /// The file as it is understood: the settings outside, and those of each network.
    type Read = (Vec<(String, String)>, Vec<Vec<(String, String)>>);

    fn read(text: &str) -> Read {
        let (mut outside, mut networks) = (vec![], vec![]);
        let mut within: Option<Vec<_>> = None;
        for line in text.lines().filter_map(line) {
            match (line, &mut within) {
                ("network={", None) => within = Some(vec![]),
                ("}", Some(_)) => networks.extend(within.take()),
                (line, to) => {
                    let (name, value) = line.split_once('=').unwrap();
                    let to = to.as_mut().unwrap_or(&mut outside);
                    to.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        assert!(within.is_none(), "{text}");
        (outside, networks)
    }

    fn value<'a>(of: &'a [(String, String)], name: &str) -> Option<&'a str> {
        of.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    #[test]
    fn a_home_network_an_open_one_and_a_key() {
        let key = "0f".repeat(32);
        let mut hidden = network("a\"#b", Some(&key));
        hidden.hidden = true;
        let told = text(&wifi(vec![
            network("home", Some("correct horse")),
            network("café", None),
            hidden,
        ]));
        assert_eq!(
            told,
            format!(
                "country=DE\nsae_pwe=2\n\
                network={{\n\tssid=686f6d65\n\tpriority=3\n\tkey_mgmt=WPA-PSK SAE\n\tieee80211w=1\n\tpsk=\"correct horse\"\n}}\n\
                network={{\n\tssid=636166c3a9\n\tpriority=2\n\tkey_mgmt=NONE\n}}\n\
                network={{\n\tssid=61222362\n\tpriority=1\n\tscan_ssid=1\n\tkey_mgmt=WPA-PSK\n\tieee80211w=1\n\tpsk={key}\n}}\n"
            )
        );
    }

    proptest! {
        #[test]
        fn whatever_a_seed_holds_is_read_back_as_it_is(
            networks in proptest::collection::vec(
                ("[^\\p{C}]{1,8}", proptest::option::of("[ -~]{8,63}|[0-9a-fA-F]{64}"), any::<bool>()),
                1..5,
            )
        ) {
            let all: Vec<WifiNetwork> = networks
                .iter()
                .map(|(ssid, passphrase, hidden)| WifiNetwork {
                    hidden: *hidden,
                    ..network(ssid, passphrase.as_deref())
                })
                .collect();
            let (outside, blocks) = read(&text(&wifi(all.clone())));
            prop_assert_eq!(value(&outside, "country"), Some("DE"));
            prop_assert_eq!(blocks.len(), all.len());
            for (at, (block, network)) in blocks.iter().zip(&all).enumerate() {
                let ssid = hex(network.ssid.as_str().as_bytes());
                prop_assert_eq!(value(block, "ssid"), Some(ssid.as_str()));
                let priority = (all.len() - at).to_string();
                prop_assert_eq!(value(block, "priority"), Some(priority.as_str()));
                prop_assert_eq!(value(block, "scan_ssid").is_some(), network.hidden);
                let psk = value(block, "psk").map(|psk| {
                    psk.strip_prefix('"').and_then(|p| p.strip_suffix('"')).unwrap_or(psk)
                });
                prop_assert_eq!(psk, network.passphrase.as_ref().map(|p| p.secret()));
                let open = value(block, "key_mgmt") == Some("NONE");
                prop_assert_eq!(open, network.passphrase.is_none());
            }
        }
    }
}
