//! The options that become the seed's tables `[network]`, `[wifi]` and `[install]`.

use crate::exit::Exit;
use anyhow::{Context as _, Result};
use holdfast_core::seed::{
    Bus, Choose, Country, Passphrase, SeedInstall, SeedNetwork, SeedWifi, Ssid, WifiNetwork,
};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Reads a word as the seed would.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

/// Network, where DHCP will not do.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network (without: DHCP and router advertisements)")]
pub struct NetworkArgs {
    /// Network interface [default: the first with a link]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Static address with prefix; may be repeated
    #[arg(
        long = "address",
        visible_alias = "static",
        value_name = "CIDR",
        value_parser = cidr,
        requires = "gateway"
    )]
    addresses: Vec<IpNet>,
    /// Default gateway; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Name server; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// SNTP server; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    ntp: Vec<String>,
}

impl NetworkArgs {
    /// The table.
    pub fn table(&self) -> SeedNetwork {
        SeedNetwork {
            interface: self.interface.clone(),
            addresses: self.addresses.clone(),
            gateways: self.gateway.clone(),
            dns: self.dns.clone(),
            ntp: self.ntp.clone(),
        }
    }
}

fn cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => format!("the prefix is missing: as in {text}/24"),
        Ok(IpAddr::V6(_)) => format!("the prefix is missing: as in {text}/64"),
        Err(_) => format!("{text:?} is no address with its prefix, as in 192.168.1.9/24"),
    })
}

/// Wi-Fi.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Wi-Fi (beside Ethernet, or in its place)")]
pub struct WifiArgs {
    /// Network that the node may use; may be repeated, the preferred one first
    #[arg(long = "wifi", value_name = "SSID", requires = "country")]
    ssids: Vec<Ssid>,
    /// File with the passphrase in its first line ('-': standard input, /dev/fd/N: a descriptor),
    /// one for each --wifi in order [default: asked for]
    #[arg(
        long = "wifi-passphrase-file",
        value_name = "FILE",
        requires = "ssids",
        conflicts_with = "open"
    )]
    files: Vec<PathBuf>,
    /// The networks have no passphrase
    #[arg(long = "wifi-open", requires = "ssids")]
    open: bool,
    /// The networks do not announce their names
    #[arg(long = "wifi-hidden", requires = "ssids")]
    hidden: bool,
    /// Where the node stands: two capital letters, such as DE; decides channels and power
    #[arg(long, value_name = "CC", requires = "ssids")]
    country: Option<Country>,
}

impl WifiArgs {
    /// The table, if one was asked for. Passphrases are read or asked for here.
    pub fn table(&self) -> Result<Option<SeedWifi>> {
        let Some(country) = self.country.clone().filter(|_| !self.ssids.is_empty()) else {
            return Ok(None);
        };
        if !self.files.is_empty() && self.files.len() != self.ssids.len() {
            return Err(Exit::Usage.error(format!(
                "{} --wifi and {} --wifi-passphrase-file: give one file for each network, in the same order",
                self.ssids.len(),
                self.files.len()
            )));
        }
        let network = |(i, ssid): (usize, &Ssid)| -> Result<WifiNetwork> {
            let passphrase = match (self.open, self.files.get(i)) {
                (true, _) => None,
                (false, Some(file)) => Some(from_file(file)?),
                (false, None) => Some(ask(ssid)?),
            };
            Ok(WifiNetwork {
                ssid: ssid.clone(),
                passphrase,
                hidden: self.hidden,
            })
        };
        let networks = self.ssids.iter().enumerate().map(network);
        Ok(Some(SeedWifi {
            country,
            networks: networks.collect::<Result<_>>()?,
        }))
    }
}

fn passphrase(text: &str, of: &str) -> Result<Passphrase> {
    let line = text.lines().next().unwrap_or_default();
    line.parse()
        .map_err(|e| Exit::Usage.error(format!("{of}: {e}")))
}

fn from_file(file: &Path) -> Result<Passphrase> {
    let path = match file.as_os_str() == "-" {
        true => Path::new("/dev/stdin"),
        false => file,
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the passphrase from {}", file.display()))?;
    passphrase(&Zeroizing::new(text), &file.display().to_string())
}

fn ask(ssid: &Ssid) -> Result<Passphrase> {
    if !std::io::stdin().is_terminal() {
        return Err(Exit::Usage.error(format!(
            "the passphrase of {} is needed and there is no terminal to ask for it: give --wifi-passphrase-file FILE, or --wifi-open",
            ssid.as_str()
        )));
    }
    let text = rpassword::prompt_password(format!("Passphrase of {}: ", ssid.as_str()))
        .context("reading the passphrase")?;
    passphrase(&Zeroizing::new(text), ssid.as_str())
}

/// Installing from a stick.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Installing from a stick")]
pub struct InstallArgs {
    /// Install on another disk of the machine that boots this one [without rules: the one internal
    /// disk that is large enough]
    #[arg(long, visible_alias = "installer")]
    install: bool,
    /// Only on a disk attached so: nvme, ata, scsi, virtio, mmc, usb; may be repeated
    #[arg(long = "install-bus", value_name = "BUS", requires = "install", value_parser = word::<Bus>)]
    bus: Vec<Bus>,
    /// Only on a disk whose model's name has this in it
    #[arg(long = "install-model", value_name = "TEXT", requires = "install")]
    model: Option<String>,
    /// Only on the disk with this serial number
    #[arg(long = "install-serial", value_name = "TEXT", requires = "install")]
    serial: Option<String>,
    /// Only on a disk of at least N GB (10^9 bytes)
    #[arg(long = "install-min-gb", value_name = "N", requires = "install")]
    min_gb: Option<u64>,
    /// Only on a disk of at most N GB
    #[arg(long = "install-max-gb", value_name = "N", requires = "install")]
    max_gb: Option<u64>,
    /// Where several fit: only (refuse), smallest, largest
    #[arg(
        long = "install-choose",
        value_name = "WHICH",
        default_value = "only",
        requires = "install",
        value_parser = word::<Choose>
    )]
    choose: Choose,
    /// Erase the disk although it holds data
    #[arg(long = "install-erase", requires = "install")]
    erase: bool,
    /// Keep the stick an installer for the next machine [default: it is spent after one]
    #[arg(long = "install-reuse", requires = "install")]
    reuse: bool,
}

impl InstallArgs {
    /// The table, if one was asked for.
    pub fn table(&self) -> Option<SeedInstall> {
        self.install.then(|| SeedInstall {
            bus: self.bus.clone(),
            model: self.model.clone(),
            serial: self.serial.clone(),
            min_gb: self.min_gb,
            max_gb: self.max_gb,
            choose: self.choose,
            erase: self.erase,
            reuse: self.reuse,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        wifi: WifiArgs,
        #[command(flatten)]
        install: InstallArgs,
    }

    fn line(words: &[&str]) -> Result<Line, String> {
        Line::try_parse_from([&["x"], words].concat()).map_err(|e| e.to_string())
    }

    #[test]
    fn networks_take_their_passphrases_from_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_string_lossy().into_owned()
        };
        let (a, b) = (file("a", "correct horse\n"), file("b", "battery staple"));
        let words = ["--country", "DE", "--wifi", "one", "--wifi", "two"];
        let with = |more: &[&str]| line(&[&words, more].concat()).unwrap().wifi.table();
        let f = "--wifi-passphrase-file";
        let table = with(&[f, &a, f, &b]).unwrap().unwrap();
        let secrets: Vec<_> = table
            .networks
            .iter()
            .map(|n| n.passphrase.as_ref().unwrap().secret().to_owned())
            .collect();
        assert_eq!(secrets, ["correct horse", "battery staple"]);
        assert!(
            with(&[f, &a])
                .unwrap_err()
                .to_string()
                .contains("one file for each")
        );
        let open = with(&["--wifi-open", "--wifi-hidden"]).unwrap().unwrap();
        assert!(
            open.networks
                .iter()
                .all(|n| n.hidden && n.passphrase.is_none())
        );
        let short = file("short", "secret");
        let error = with(&[f, &short, f, &a]).unwrap_err().to_string();
        assert!(
            error.contains("8 to 63") && !error.contains("secret\""),
            "{error}"
        );
        assert!(line(&[]).unwrap().wifi.table().unwrap().is_none());
        assert!(line(&["--wifi", "one"]).is_err(), "the country is needed");
        assert!(line(&["--country", "de", "--wifi", "one"]).is_err());
    }

    #[test]
    fn install_rules_need_install_and_known_words() {
        assert!(line(&[]).unwrap().install.table().is_none());
        assert!(line(&["--install-erase"]).is_err());
        let all = [
            "--install",
            "--install-bus",
            "nvme",
            "--install-bus",
            "ata",
            "--install-choose",
            "smallest",
            "--install-min-gb",
            "100",
        ];
        let table = line(&all).unwrap().install.table().unwrap();
        assert_eq!(table.bus, [Bus::Nvme, Bus::Ata]);
        assert_eq!((table.choose, table.min_gb), (Choose::Smallest, Some(100)));
        let error = line(&["--install", "--install-bus", "floppy"])
            .err()
            .unwrap();
        assert!(error.contains("nvme"), "{error}");
    }
}
