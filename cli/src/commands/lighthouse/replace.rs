//! `holdfast lighthouse move` and `restore`: another lighthouse, with keys of its own, in the place
//! of one. The root signs a *lighthouses* document that names it; nodes that hold the document, or
//! meet the new one at an address they know, go over to it and fill it again.

use super::super::cluster::new::host_port;
use super::folder::{port_of, sign, unknown, write_folder};
use crate::app::App;
use crate::cluster_dir::ClusterDir;
use crate::exit::Exit;
use crate::lighthouse::connect;
use crate::{files, words};
use anyhow::{Context as _, Result};
use holdfast_core::api::LighthouseIdentity;
use holdfast_core::documents::{DocumentSet, Lighthouse, Lighthouses, next_generation};
use holdfast_lighthouse::{Keys, unix_now};
use serde::Serialize;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Where the new one is, as options say.
#[derive(Debug, clap::Args)]
struct Place {
    /// The name of the lighthouse to replace, as `holdfast cluster show` has it [default: the first]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Host name or address under which this machine reaches it, where that differs
    #[arg(long, value_name = "HOST")]
    reach: Option<String>,
    /// Address that it listens on
    #[arg(long, default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED), value_name = "ADDRESS")]
    listen: IpAddr,
    /// TCP port of its HTTPS API [default: as before]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    https_port: Option<u16>,
    /// UDP port of its mesh socket [default: as before]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    udp_port: Option<u16>,
    /// How long members may bring back what the old one knew of them
    #[arg(long, default_value = "90d", value_name = "TIME", value_parser = words::parse_duration)]
    refill: Duration,
}

/// Options of `move`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  holdfast lighthouse move --host 203.0.113.9
      then copy the folder that it names to the new machine and run it there; keep the old one
      running until `holdfast nodes` shows all nodes, then stop it

The new lighthouse gets new keys. The old one hands the signed document on to the nodes, and they \
go over to the new one, which learns of them from their own records. Grants with uses left are \
kept to be handed over with `holdfast token push`. Bundles are uploaded again by the next upgrade. \
Seeds made before name the old lighthouse's key: make new ones.")]
pub struct MoveArgs {
    /// Host name or address of the new one; may be repeated, tried in order
    #[arg(long, value_name = "HOST", required = true)]
    host: Vec<String>,
    #[command(flatten)]
    place: Place,
}

/// Options of `restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast lighthouse restore
      under the same name: let it lead to the new machine's address
  holdfast lighthouse restore --host lighthouse.example.net --host 203.0.113.9

For a lighthouse that is gone with its disk. The new one gets new keys; nodes look for it under the \
addresses they know, so one of those has to lead to it: they take its key when the root's newest \
document names it, and it learns of them from their own records. Copy the folder that the command \
names to the new machine and run it there. Once `holdfast nodes` shows those that had joined, \
`holdfast token push --again` hands over the grants that the old one had, for seeds not used yet. \
What the old one knew alone is gone: how often a grant was used by members that never come back, bundles (the next upgrade uploads its \
own).")]
pub struct RestoreArgs {
    /// Host names or addresses of the new one, tried in order [default: as before]
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Also where nodes know none of the addresses
    #[arg(long)]
    unknown_address: bool,
    #[command(flatten)]
    place: Place,
}

/// `host:port` of every host; without hosts the old texts, with another port if one is given.
fn at(hosts: &[String], port: Option<u16>, old: &[String]) -> Result<Vec<String>> {
    let before = port_of(old).context("the lighthouses document names no port")?;
    match port {
        None if hosts.is_empty() => Ok(old.to_vec()),
        _ => {
            let port = port.unwrap_or(before);
            let hosts = match hosts {
                [] => old
                    .iter()
                    .filter_map(|t| Some(t.rsplit_once(':')?.0.to_owned()))
                    .collect(),
                _ => hosts.to_vec(),
            };
            hosts.iter().map(|h| host_port(h, port)).collect()
        }
    }
}

/// The *lighthouses* document with a new one in the place of an old one, and both.
fn replaced(
    held: &Lighthouses,
    hosts: &[String],
    place: &Place,
    identity: &LighthouseIdentity,
    now: u64,
) -> Result<(Lighthouses, Lighthouse, Lighthouse)> {
    let mut list = held.clone();
    list.generation = next_generation(held.generation, now);
    let named = |l: &&mut Lighthouse| place.name.as_ref().is_none_or(|n| l.name == *n);
    let Some(entry) = list.lighthouses.iter_mut().find(named) else {
        return Err(unknown(place.name.as_deref().unwrap_or_default()));
    };
    let old = entry.clone();
    *entry = Lighthouse {
        name: old.name.clone(),
        https: at(hosts, place.https_port, &old.https)?,
        udp: at(hosts, place.udp_port, &old.udp)?,
        key: identity.key,
        mesh_key: identity.mesh_key,
        index: old.index,
    };
    let new = entry.clone();
    Ok((list, old, new))
}

/// Whether a node that holds the old document finds the new lighthouse, or another one.
fn found_by_nodes(list: &Lighthouses, old: &Lighthouse, new: &Lighthouse) -> bool {
    list.lighthouses.len() > 1 || new.https.iter().any(|a| old.https.contains(a))
}

#[derive(Serialize)]
struct Replaced {
    name: String,
    https: Vec<String>,
    udp: Vec<String>,
    key: String,
    lighthouses: u64,
    dir: PathBuf,
    /// Where the old one's folder is kept, if there was one.
    kept: Option<PathBuf>,
    refill_until: u64,
}

/// Writes the new folder, then the documents: cut off before that, nothing counts yet.
fn prepare(
    cluster: &mut ClusterDir,
    set: &DocumentSet,
    keys: &Keys,
    place: &Place,
    (list, old, new): &(Lighthouses, Lighthouse, Lighthouse),
) -> Result<Replaced> {
    let how = (place.listen, place.refill);
    let made = write_folder(cluster, set, list.generation, keys, new, how)?;
    cluster.save_documents(set)?;
    // This machine's own way led to the old one.
    if let Some(host) = &place.reach {
        let port = port_of(&new.https).context("an address without a port")?;
        cluster.set_way(new, vec![host_port(host, port)?]);
        cluster.save_config()?;
    } else if new.https != old.https {
        cluster.set_way(new, vec![]);
        cluster.save_config()?;
    }
    Ok(Replaced {
        name: new.name.clone(),
        https: new.https.clone(),
        udp: new.udp.clone(),
        key: new.key.to_string(),
        lighthouses: list.generation,
        dir: made.dir,
        kept: made.kept,
        refill_until: made.refill_until,
    })
}

fn words_of(done: &Replaced, next: &str) -> String {
    let kept = done.kept.as_ref().map_or_else(String::new, |kept| {
        format!("\nThe old one's folder is kept as {}.", kept.display())
    });
    format!(
        "{dir} is lighthouse {name} with new keys, named by lighthouses document {generation}:\n  {https} (TCP), {udp} (UDP){kept}\n\nNext: copy {dir} to its machine, then there:\n  holdfast lighthouse install --dir FOLDER\n{next}",
        dir = done.dir.display(),
        name = done.name,
        generation = done.lighthouses,
        https = done.https.join(" "),
        udp = done.udp.join(" "),
    )
}

/// Runs `move`.
pub async fn move_it(app: &App, args: MoveArgs) -> Result<()> {
    let mut connection = connect(app).await.context(
        "the old lighthouse has to hand the news on to the nodes; if it is gone for good: `holdfast lighthouse restore`",
    )?;
    let grants = connection.grants().await?;
    let keys = Keys::generate().context("the lighthouse's keys")?;
    let cluster = &mut connection.cluster;
    let lock = cluster.lock()?;
    cluster.reload_config()?;
    let held = cluster.documents()?;
    let change = replaced(
        &held.lighthouses,
        &args.host,
        &args.place,
        &keys.identity(),
        words::now(),
    )?;
    let set = sign(app, cluster, &held, &change.0)?;
    for grant in grants.iter().filter(|g| !g.revoked) {
        // Whatever a lighthouse says that is no grant must not keep anybody from leaving it.
        let Ok((opened, _)) = grant.grant.open_self() else {
            continue;
        };
        if grant.used_by.len() < opened.uses as usize && unix_now() < opened.not_after {
            let text = serde_json::to_vec_pretty(&grant.grant)?;
            files::write_public(&cluster.pending_grant(opened.id.as_str()), &text)?;
        }
    }
    let done = prepare(cluster, &set, &keys, &args.place, &change)?;
    drop(lock);
    connection.put_documents(app, "the news", &set).await.context(
        "the new folder and documents.json are ready, but no lighthouse has got the documents: put documents.json into the old one's folder and start it again",
    )?;
    app.print(&done, || {
        words_of(
            &done,
            "Nodes go over to it as soon as it runs. Then `holdfast token push`, and stop the old one when\n`holdfast nodes` shows them all.",
        )
    })
}

/// Runs `restore`.
pub fn restore(app: &App, args: RestoreArgs) -> Result<()> {
    let mut cluster = app.cluster()?;
    let keys = Keys::generate().context("the lighthouse's keys")?;
    let _lock = cluster.lock()?;
    cluster.reload_config()?;
    let held = cluster.documents()?;
    let change = replaced(
        &held.lighthouses,
        &args.host,
        &args.place,
        &keys.identity(),
        words::now(),
    )?;
    let (list, old, new) = &change;
    if !found_by_nodes(list, old, new) && !args.unknown_address {
        return Err(Exit::Usage.error(format!(
            "nodes look for a lighthouse at {}, and would never find {}: keep a name that you can point at the new machine, \
             or give --unknown-address if no node has to come back by itself",
            old.https.join(", "),
            new.https.join(", ")
        )));
    }
    let set = sign(app, &cluster, &held, list)?;
    let done = prepare(&mut cluster, &set, &keys, &args.place, &change)?;
    let next = if list.lighthouses.len() > 1 {
        "Then `holdfast cluster push`: the other lighthouses tell the nodes of it. Seeds made before that\nname it alone do not fit any more: make new ones."
    } else {
        "Nodes that find it under an address they know come back by themselves (each tries at least once\na minute). Seeds made before do not fit any more: make new ones."
    };
    app.print(&done, || words_of(&done, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_core::cluster::{ClusterId, MeshIndex};
    use holdfast_core::keys::{MeshKey, PublicKey};

    fn held() -> Lighthouses {
        let one = Lighthouse {
            name: "one".into(),
            https: vec!["a.example:443".into(), "[2001:db8::1]:443".into()],
            udp: vec!["a.example:51820".into()],
            key: PublicKey([1; 32]),
            mesh_key: MeshKey([1; 32]),
            index: MeshIndex::LIGHTHOUSE,
        };
        Lighthouses {
            cluster: ClusterId([9; 16]),
            generation: 4,
            lighthouses: vec![one],
        }
    }

    fn change(hosts: &[&str], place: &Place) -> Result<(Lighthouses, Lighthouse, Lighthouse)> {
        let identity = LighthouseIdentity {
            key: PublicKey([2; 32]),
            mesh_key: MeshKey([2; 32]),
        };
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        replaced(&held(), &hosts, place, &identity, 1_800_000_000)
    }

    fn place(name: Option<&str>, https_port: Option<u16>) -> Place {
        Place {
            name: name.map(Into::into),
            https_port,
            listen: Ipv6Addr::UNSPECIFIED.into(),
            ..clap_defaults()
        }
    }

    fn clap_defaults() -> Place {
        Place {
            name: None,
            reach: None,
            listen: Ipv6Addr::UNSPECIFIED.into(),
            https_port: None,
            udp_port: None,
            refill: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_new_one_takes_the_place_with_keys_of_its_own() {
        let (list, old, new) = change(&[], &place(None, None)).unwrap();
        // Nodes may hold a newer one than an old backup, from which this is made.
        assert_eq!(list.generation, 1_800_000_000);
        assert_eq!((&new.https, new.index), (&old.https, old.index));
        assert_eq!(
            (new.key, new.mesh_key),
            (PublicKey([2; 32]), MeshKey([2; 32]))
        );
        assert!(found_by_nodes(&list, &old, &new));
        let (list, old, new) = change(&["b.example"], &place(Some("one"), None)).unwrap();
        assert_eq!(
            (new.https[0].as_str(), new.udp[0].as_str()),
            ("b.example:443", "b.example:51820")
        );
        assert!(!found_by_nodes(&list, &old, &new));
        let (_, _, new) = change(&[], &place(None, Some(8443))).unwrap();
        assert_eq!(new.https, ["a.example:8443", "[2001:db8::1]:8443"]);
        assert!(change(&[], &place(Some("two"), None)).is_err());
        assert!(change(&["https://x"], &place(None, None)).is_err());
    }
}
