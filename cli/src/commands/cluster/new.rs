//! `holdfast cluster new NAME`.

use super::super::lighthouse::{CONFIG, LighthouseConfig};
use super::plan_fields;
use crate::app::App;
use crate::cluster_dir::{ClusterConfig, ClusterDir, KeyFile, key_in};
use crate::exit::Exit;
use crate::secrets::{new_key, random};
use crate::{files, paper, table};
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use holdfast_core::cluster::{AddressPlan, ClusterId, MESH_PORT, MeshIndex};
use holdfast_core::documents::{
    DocumentSet, Lighthouse, Lighthouses, Operator, Operators, Policy, Right, Roots,
};
use holdfast_core::keys::PrivateKey;
use holdfast_core::names::{ClusterName, OperatorName};
use holdfast_core::releases::{ReleaseList, add_signature};
use holdfast_core::signed::Signed;
use holdfast_lighthouse::{ClusterFile, LighthouseDir};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where a machine under QEMU's user network finds its host's loopback.
const QEMU_HOST: &str = "10.0.2.2";

/// Options.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast cluster new demo
      for virtual machines on this computer: the lighthouse listens on loopback
  holdfast cluster new home --lighthouse lighthouse.example.net
  holdfast cluster new home --lighthouse 203.0.113.7 --https-port 8443

What is made: DIR/cluster.toml, DIR/keys/*.age (encrypted with a passphrase: scrypt 2^16, so take \
five or six random words), DIR/documents.json, DIR/lighthouse/ (copy it to the machine that runs the \
lighthouse). The second root key is printed once and kept nowhere.")]
pub struct Args {
    /// The cluster's name: a-z, 0-9 and '-', at most 32 characters
    name: ClusterName,
    /// Make the directory here [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Host name or address under which nodes reach the lighthouse; may be repeated, tried in order.
    /// Without it: this computer's loopback, for virtual machines on it
    #[arg(long, value_name = "HOST")]
    lighthouse: Vec<String>,
    /// Host name or address under which this machine reaches it, where that differs
    #[arg(long, value_name = "HOST")]
    reach: Option<String>,
    /// Address that the lighthouse listens on [default: all, or 127.0.0.1 without --lighthouse]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<IpAddr>,
    /// TCP port of the lighthouse's HTTPS API [default: 443, which also carries the mesh where UDP is
    /// blocked; 8443 without --lighthouse]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    https_port: Option<u16>,
    /// UDP port of the lighthouse's mesh socket
    #[arg(long, default_value_t = MESH_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    udp_port: u16,
    /// Pods and services have IPv6 ranges too; cannot be changed later
    #[arg(long)]
    dual_stack: bool,
    /// Your name as nodes' logs show it [default: your user name]
    #[arg(long, value_name = "NAME")]
    operator: Option<OperatorName>,
}

/// Where the lighthouse is, as parsed.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    https: Vec<String>,
    udp: Vec<String>,
    api: Vec<String>,
    listen: IpAddr,
}

pub fn host_port(host: &str, port: u16) -> Result<String> {
    let text = match host.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
        Ok(v6) => format!("[{v6}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    };
    if host.chars().any(|c| c.is_whitespace() || c == '/')
        || !holdfast_core::seed::is_host_port(&text)
    {
        return Err(Exit::Usage.error(format!(
            "{host:?} is no host name or address (ports have options of their own)"
        )));
    }
    Ok(text)
}

impl Args {
    fn https_port(&self) -> u16 {
        // A firewall that lets nothing else through lets 443 through.
        let usual = if self.lighthouse.is_empty() {
            8443
        } else {
            443
        };
        self.https_port.unwrap_or(usual)
    }
}

fn place(args: &Args) -> Result<Place> {
    let local = args.lighthouse.is_empty();
    let hosts = if local {
        vec![QEMU_HOST.to_string()]
    } else {
        args.lighthouse.clone()
    };
    let all = |port| {
        hosts
            .iter()
            .map(|h| host_port(h, port))
            .collect::<Result<Vec<_>>>()
    };
    let reach = args
        .reach
        .clone()
        .or_else(|| local.then(|| Ipv4Addr::LOCALHOST.to_string()));
    let v6 = hosts.iter().any(|h| h.contains(':'));
    Ok(Place {
        https: all(args.https_port())?,
        udp: all(args.udp_port)?,
        api: reach
            .map(|h| host_port(&h, args.https_port()))
            .transpose()?
            .into_iter()
            .collect(),
        listen: args.listen.unwrap_or(match (local, v6) {
            (true, _) => Ipv4Addr::LOCALHOST.into(),
            (false, true) => Ipv6Addr::UNSPECIFIED.into(),
            (false, false) => Ipv4Addr::UNSPECIFIED.into(),
        }),
    })
}

/// The user's name as far as an operator's name can hold it.
fn own_name() -> OperatorName {
    let user = std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_default();
    let fit: String = user
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = OperatorName::new(fit.trim_matches('-').chars().take(63).collect::<String>());
    name.unwrap_or_else(|_| OperatorName::new("operator").expect("a fixed label"))
}

struct Keys {
    root: PrivateKey,
    paper: PrivateKey,
    operator: PrivateKey,
    release: PrivateKey,
    lighthouse: holdfast_lighthouse::Keys,
}

fn documents(
    id: ClusterId,
    keys: &Keys,
    operator: OperatorName,
    place: &Place,
) -> Result<DocumentSet> {
    let root = &keys.root;
    let lighthouse = keys.lighthouse.identity();
    let operators = Operators {
        cluster: id,
        generation: 1,
        operators: vec![Operator {
            name: operator,
            key: keys.operator.public(),
            rights: vec![Right::All],
        }],
        former: vec![],
    };
    let lighthouses = Lighthouses {
        cluster: id,
        generation: 1,
        lighthouses: vec![Lighthouse {
            name: "lighthouse-1".into(),
            https: place.https.clone(),
            udp: place.udp.clone(),
            key: lighthouse.key,
            mesh_key: lighthouse.mesh_key,
            index: MeshIndex::LIGHTHOUSE,
        }],
    };
    let policy = Policy {
        cluster: id,
        generation: 1,
        rules: vec![],
        evicted: vec![],
        revoked: vec![],
    };
    let mut releases = ReleaseList::new(id.0, 1, &[keys.release.public().0])?.encode();
    add_signature(&mut releases, &root.public().0, |bytes| root.sign(bytes).0)?;
    Ok(DocumentSet {
        operators: Signed::sign(&operators, root)?,
        lighthouses: Signed::sign(&lighthouses, root)?,
        policy: Signed::sign(&policy, root)?,
        releases: B64.encode(releases),
    })
}

fn write_lighthouse(
    dir: &Path,
    config: &ClusterConfig,
    set: &DocumentSet,
    keys: &Keys,
    place: &Place,
    args: &Args,
) -> Result<()> {
    let cluster = ClusterFile::new(
        config.name.clone(),
        config.id,
        config.dual_stack,
        Roots(config.roots.clone()),
    );
    LighthouseDir::create(dir, &cluster, &keys.lighthouse, set)?;
    let listen = LighthouseConfig {
        https: vec![SocketAddr::new(place.listen, args.https_port())],
        udp: SocketAddr::new(place.listen, args.udp_port),
        relay_mbits: None,
    };
    files::write_public(&dir.join(CONFIG), toml::to_string(&listen)?.as_bytes())
}

#[derive(Serialize)]
struct Made {
    name: String,
    id: String,
    dir: PathBuf,
    lighthouse: PathBuf,
    plan: AddressPlan,
    /// Shown this once.
    printed_root: Vec<String>,
}

/// Makes the cluster.
pub fn run(app: &App, args: Args) -> Result<()> {
    let place = place(&args)?;
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(args.name.as_str()));
    if dir
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(Exit::Usage.error(format!(
            "{} exists and is not empty; nothing was changed. Take another name or --dir",
            dir.display()
        )));
    }
    app.passphrase.choose()?;
    let keys = Keys {
        root: new_key()?,
        paper: new_key()?,
        operator: new_key()?,
        release: new_key()?,
        lighthouse: holdfast_lighthouse::Keys::generate().context("the lighthouse's keys")?,
    };
    let config = ClusterConfig {
        version: 1,
        name: args.name.clone(),
        id: ClusterId::wide(random()?),
        dual_stack: args.dual_stack,
        roots: vec![keys.root.public(), keys.paper.public()],
        api: place.api.clone(),
        other_apis: Default::default(),
    };
    let operator = args.operator.clone().unwrap_or_else(own_name);
    let set =
        documents(config.id, &keys, operator, &place).context("signing the first documents")?;

    files::make_private_dir(&dir)?;
    files::make_private_dir(&dir.join("keys"))?;
    for (which, key) in [
        (KeyFile::Root, &keys.root),
        (KeyFile::Operator, &keys.operator),
        (KeyFile::Release, &keys.release),
    ] {
        app.passphrase.seal(&key_in(&dir, which), key)?;
    }
    write_lighthouse(&dir.join("lighthouse"), &config, &set, &keys, &place, &args)?;
    let cluster = ClusterDir::create(&dir, config, &set)?;

    let made = Made {
        name: args.name.to_string(),
        id: cluster.config.id.to_string(),
        lighthouse: cluster.lighthouse(),
        plan: cluster.plan(),
        printed_root: paper::encode(&keys.paper),
        dir,
    };
    app.print(&made, || words(&made, &place))
}

fn words(made: &Made, place: &Place) -> String {
    let mut rows = vec![("cluster", made.name.clone()), ("id", made.id.clone())];
    rows.extend(plan_fields(&made.plan));
    rows.push((
        "lighthouse",
        format!(
            "{} (TCP), {} (UDP)",
            place.https.join(" "),
            place.udp.join(" ")
        ),
    ));
    let groups: Vec<String> = made
        .printed_root
        .chunks(5)
        .map(|row| format!("    {}", row.join(" ")))
        .collect();
    format!(
        "{fields}

Made {dir}: keys, encrypted with the passphrase, and documents signed by the root.

THE SECOND ROOT KEY. Print or write it down now and put it into a safe; it is shown this once and
kept nowhere else (the fifth character of each group checks the other four):

{groups}

What is lost with what:
  - {dir}/keys and this page both lost: nobody can ever again add operators, release keys or
    lighthouses, revoke or evict; nodes run on as they are.
  - {dir}/keys or its passphrase lost: `holdfast cluster restore-root` brings the root key back from
    this page. The operator and release keys do not come back, and no command of this version puts
    new ones in their place: nodes run on, but nobody can ask them anything or build for them. So
    keep a copy of {dir} and of its passphrase.
  - this page in a stranger's hands: they can take the cluster over.

Next:
  holdfast lighthouse run --dir {lighthouse}
  (or copy that folder to the machine that is to be the lighthouse, and there:
   holdfast lighthouse install --dir FOLDER)",
        fields = table::fields(&rows),
        dir = made.dir.display(),
        groups = groups.join("\n"),
        lighthouse = made.lighthouse.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn place_of(line: &str) -> Result<Place> {
        place(&Line::try_parse_from(line.split(' ')).unwrap().args)
    }

    #[test]
    fn places_of_lighthouses() {
        let local = place_of("new demo").unwrap();
        assert_eq!(local.https, ["10.0.2.2:8443"]);
        assert_eq!(local.api, ["127.0.0.1:8443"]);
        assert_eq!(local.listen, IpAddr::from(Ipv4Addr::LOCALHOST));
        let far = place_of("new demo --lighthouse a.example --lighthouse 2001:db8::1 --udp-port 5")
            .unwrap();
        assert_eq!(far.https, ["a.example:443", "[2001:db8::1]:443"]);
        assert_eq!(far.udp, ["a.example:5", "[2001:db8::1]:5"]);
        assert!(far.api.is_empty());
        assert_eq!(far.listen, IpAddr::from(Ipv6Addr::UNSPECIFIED));
        for bad in ["a:1", "https://a", "a/b", "::g"] {
            assert!(
                place_of(&format!("new demo --lighthouse {bad}")).is_err(),
                "{bad}"
            );
        }
    }
}
