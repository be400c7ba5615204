//! Radios: for each one wpa_supplicant as a service of init, with a file of the seed's networks. Once it
//! has let the radio into a network, the interface is addressed like any other.

mod config;

use super::Wanted;
use super::plan::{self, Link};
use crate::console::say;
use crate::init::Init;
use crate::notes::Notes;
use anyhow::Context as _;
use holdfast_core::image::ServiceSpec;
use holdfast_core::ipc::InitRequest;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Comes with the recipe's package.
const PROGRAM: &str = "/usr/sbin/wpa_supplicant";
/// Where its files lie: in memory.
const FOLDER: &str = "/run/holdfast";
/// The subject of notes.
const NOTE: &str = "wifi";
/// A radio's driver and firmware load beside the start: so long it is not said that there is none.
const QUIET: Duration = Duration::from_secs(60);

/// What runs for radios.
pub struct Radios {
    init: Init,
    notes: Notes,
    began: Instant,
    told: bool,
    /// By interface: the file it was started with.
    running: BTreeMap<String, String>,
}

impl Radios {
    /// Nothing runs yet.
    pub fn new(init: Init, notes: Notes) -> Self {
        Self {
            init,
            notes,
            began: Instant::now(),
            told: false,
            running: BTreeMap::new(),
        }
    }

    /// Brings what runs to what is wanted.
    pub async fn tend(&mut self, links: &[Link], wanted: &Wanted) {
        let used: Vec<&Link> = links
            .iter()
            .filter(|l| l.wireless && plan::mode(l, wanted).is_some())
            .collect();
        let gone: Vec<String> = self
            .running
            .keys()
            .filter(|name| used.iter().all(|l| l.name != **name))
            .cloned()
            .collect();
        for name in gone {
            self.running.remove(&name);
            self.stop(&name).await;
        }
        let hindrance = match &wanted.wifi {
            None => None,
            Some(_) if !Path::new(PROGRAM).exists() => Some(format!(
                "Wi-Fi: this system has no {PROGRAM}: the rescue system and images without recipe wifi use Ethernet only"
            )),
            Some(_) if used.is_empty() => (self.began.elapsed() > QUIET).then(|| {
                "Wi-Fi: no wireless interface is there: the image has no driver or firmware for it, or network.interface names another one".to_owned()
            }),
            Some(wifi) => {
                let text = config::text(wifi);
                for link in used {
                    self.bring(&link.name, &text).await;
                }
                None
            }
        };
        match hindrance {
            Some(text) => {
                if !std::mem::replace(&mut self.told, true) {
                    say(&text);
                }
                self.notes.set(NOTE, text);
            }
            None => self.notes.clear(NOTE),
        }
    }

    /// Starts wpa_supplicant on an interface, or anew where its file is another.
    async fn bring(&mut self, interface: &str, text: &str) {
        if self.running.get(interface).is_some_and(|t| t == text) {
            return;
        }
        let path = format!("{FOLDER}/{}.conf", service(interface));
        // An agent that was started anew finds what its predecessor started.
        let same = std::fs::read_to_string(&path).is_ok_and(|t| t == text);
        if !same {
            self.stop(interface).await;
            if let Err(e) = write(Path::new(&path), text) {
                tracing::warn!(interface, "{e:#}");
                return;
            }
        }
        let spec = ServiceSpec {
            name: service(interface),
            exec: [PROGRAM, "-D", "nl80211", "-i", interface, "-c", &path]
                .map(Into::into)
                .into(),
            env: vec![],
            keep_children: false,
            delegate: false,
        };
        match self.init.start(spec).await {
            Ok(()) => {
                tracing::info!(interface, "wpa_supplicant");
                self.running.insert(interface.to_owned(), text.to_owned());
            }
            Err(e) => tracing::warn!(interface, "{e:#}"),
        }
    }

    async fn stop(&self, interface: &str) {
        let name = service(interface);
        // An error: it never ran.
        let _ = self.init.ask(InitRequest::StopService { name }).await;
    }
}

/// The service's name for an interface, of the letters that init takes.
fn service(interface: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    };
    format!("wifi-{}", interface.chars().map(plain).collect::<String>())
}

/// For its owner's eyes only.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        let _ = std::fs::remove_file(&fresh);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&fresh, path)
    };
    written().with_context(|| path.display().to_string())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use holdfast_core::seed::{SeedWifi, WifiNetwork};
    use std::os::unix::fs::PermissionsExt as _;

    /// Open networks in Germany.
    pub fn settings(names: &[&str]) -> SeedWifi {
        SeedWifi {
            country: "DE".parse().unwrap(),
            networks: names
                .iter()
                .map(|name| WifiNetwork {
                    ssid: name.parse().unwrap(),
                    passphrase: None,
                    hidden: false,
                })
                .collect(),
        }
    }

    #[test]
    fn the_file_is_the_owners_and_the_services_name_inits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wifi-wlan0.conf");
        for text in ["one", "two"] {
            write(&path, text).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(service("wlan0"), "wifi-wlan0");
        assert_eq!(service("wl_X.1"), "wifi-wl-x-1");
    }
}
