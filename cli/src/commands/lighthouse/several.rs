//! `holdfast lighthouse add`, `remove`: more than one, so that none is missed when it is lost.

use super::super::cluster::new::host_port;
use super::folder::{put_by, sign, unknown, write_folder};
use crate::app::App;
use crate::cluster_dir::{ClusterDir, Documents, KeyFile};
use crate::exit::{Exit, exit_of, words_of};
use crate::lighthouse::{Connection, connect_as};
use crate::words;
use anyhow::{Context as _, Result};
use holdfast_core::cluster::{MESH_PORT, MeshIndex};
use holdfast_core::documents::{Lighthouse, Lighthouses, MOST_LIGHTHOUSES, next_generation};
use holdfast_core::seed::is_host_port;
use holdfast_lighthouse::Keys;
use serde::Serialize;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Options of `add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast lighthouse add paris --lighthouse paris.example.net
  holdfast lighthouse add paris --lighthouse paris.example.net --lighthouse 203.0.113.9
      one machine by its name and by its address: whichever answers serves

Makes its folder with keys of its own, CLUSTER/lighthouses/NAME (CLUSTER/lighthouse where the one \
that was there is removed; the command says which), and signs the document that names it; the \
lighthouses that run tell the nodes. Copy the folder to its machine and run it there. Members go on \
with each lighthouse that they reach, so take another machine, provider and domain than those of the \
others. Seeds made from now on name all of them; those made before do not know the new one.")]
pub struct AddArgs {
    /// What to call it: a-z, 0-9 and '-', at most 32 characters
    #[arg(value_parser = parse_name)]
    name: String,
    /// Host name or address under which nodes reach it; may be repeated, tried in order
    #[arg(long, value_name = "HOST[:PORT]", required = true)]
    lighthouse: Vec<String>,
    /// Host name or address under which this machine reaches it, where that differs
    #[arg(long, value_name = "HOST[:PORT]")]
    reach: Option<String>,
    /// Address that it listens on
    #[arg(long, default_value_t = IpAddr::V6(Ipv6Addr::UNSPECIFIED), value_name = "ADDRESS")]
    listen: IpAddr,
    /// TCP port of its HTTPS API where a host has none: 443 also carries the mesh where UDP is blocked
    #[arg(long, default_value_t = 443, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    https_port: u16,
    /// UDP port of its mesh socket
    #[arg(long, default_value_t = MESH_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    udp_port: u16,
    /// How long members may tell it whom the others let in
    #[arg(long, default_value = "90d", value_name = "TIME", value_parser = words::parse_duration)]
    refill: Duration,
}

/// Options of `remove`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast lighthouse remove paris
  holdfast lighthouse remove lighthouse-1     also one that is lost with its machine

Members drop it as soon as they have the document that the root signs. Its folder is put by beside it. \
Seeds that name no other lighthouse are of no use any more, and phones that have it as their endpoint \
need a new configuration (`holdfast client new`).")]
pub struct RemoveArgs {
    /// Its name, as `holdfast lighthouse list` has it
    name: String,
}

fn parse_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 32 || !text.chars().all(plain) {
        return Err("a lighthouse's name is of a-z, 0-9 and '-', at most 32 characters".into());
    }
    Ok(text.into())
}

/// `host:port` of a host that may have a port of its own, and the host alone.
fn split(text: &str, port: u16) -> Result<(String, String)> {
    if let Ok(whole) = host_port(text, port) {
        return Ok((whole, text.into()));
    }
    match text.rsplit_once(':') {
        Some((host, own)) if is_host_port(text) => {
            let own = own.parse().context("a port")?;
            Ok((host_port(host, own)?, host.into()))
        }
        _ => Err(Exit::Usage.error(format!(
            "{text:?} is no host name or address, nor one with a port"
        ))),
    }
}

/// The entry that `args` describe, beside those of `held`.
fn entry(held: &Lighthouses, args: &AddArgs, keys: &Keys) -> Result<Lighthouse> {
    let all = &held.lighthouses;
    let refuse = |text: String| Err(Exit::Usage.error(text));
    if all.iter().any(|l| l.name == args.name) {
        return refuse(format!(
            "there is a lighthouse {} already: take another name, or `holdfast lighthouse restore --name {0}` if that one is lost",
            args.name
        ));
    }
    if all.len() >= MOST_LIGHTHOUSES {
        return refuse(format!(
            "there are {} lighthouses, and members keep to {MOST_LIGHTHOUSES} at most: `holdfast lighthouse remove` one first",
            all.len()
        ));
    }
    let (mut https, mut udp) = (vec![], vec![]);
    for host in &args.lighthouse {
        let (at, host) = split(host, args.https_port)?;
        if let Some(other) = all.iter().find(|l| l.https.contains(&at)) {
            return refuse(format!(
                "lighthouse {} is at {at}: one machine needs only one; to replace it: `holdfast lighthouse move` or `restore`",
                other.name
            ));
        }
        https.push(at);
        udp.push(host_port(&host, args.udp_port)?);
    }
    let free = (MeshIndex::LIGHTHOUSE.get()..MeshIndex::FIRST_NODE.get())
        .filter_map(|n| MeshIndex::try_from(n).ok())
        .find(|index| all.iter().all(|l| l.index != *index));
    let identity = keys.identity();
    Ok(Lighthouse {
        name: args.name.clone(),
        https,
        udp,
        key: identity.key,
        mesh_key: identity.mesh_key,
        index: free.context("no mesh index is free for a lighthouse")?,
    })
}

/// `held` without the one called `name`, and that one.
fn without(held: &Lighthouses, name: &str) -> Result<(Lighthouses, Lighthouse)> {
    let mut list = held.clone();
    let at = list.lighthouses.iter().position(|l| l.name == name);
    let Some(at) = at else {
        return Err(unknown(name));
    };
    if list.lighthouses.len() == 1 {
        return Err(Exit::Usage.error(format!(
            "{name} is the last lighthouse, without which no node can be reached: `holdfast lighthouse add` another first, or `move` or `restore` this one"
        )));
    }
    let gone = list.lighthouses.remove(at);
    Ok((list, gone))
}

/// The lighthouses that can be used; none is no error: what is signed here is handed over later, and
/// the only one that answers may be the one to be removed.
async fn reached(app: &App) -> Result<Option<Connection>> {
    let cluster = app.cluster()?;
    let operator = app.key(&cluster, KeyFile::Operator)?;
    match connect_as(cluster, operator).await {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if matches!(exit_of(&error), Exit::Unreachable | Exit::Refused) => {
            app.say(&format!(
                "note: no lighthouse can be told, nodes learn of this once one answers and `holdfast cluster push` told it: {}",
                words_of(&error)
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Hands the document that was signed here to all that answer. That none takes it is no error either:
/// the only one there is may be what another is added for.
async fn tell(app: &App, connection: Option<Connection>, documents: Documents) {
    let Some(mut connection) = connection else {
        return;
    };
    connection.documents = documents;
    if let Err(error) = connection.push_documents(app).await {
        app.say(&format!(
            "note: the document is signed and kept in documents.json, but no lighthouse has got it: `holdfast cluster push` tries again: {}",
            words_of(&error)
        ));
    }
}

fn no_root(error: anyhow::Error, cluster: &ClusterDir) -> anyhow::Error {
    if cluster.key(KeyFile::Root).exists() {
        return error;
    }
    error.context(
        "only the root key signs for lighthouses, and this machine has none: run this where it is, or bring it back with `holdfast cluster restore-root`",
    )
}

#[derive(Serialize)]
struct Added {
    name: String,
    https: Vec<String>,
    udp: Vec<String>,
    index: MeshIndex,
    key: String,
    lighthouses: u64,
    dir: PathBuf,
}

/// Runs `add`.
pub async fn add(app: &App, args: AddArgs) -> Result<()> {
    let own = args
        .reach
        .as_deref()
        .map(|host| split(host, args.https_port));
    let own = own.transpose()?.map(|(at, _)| at);
    // What is wrong with the command line is said before anything is asked.
    let mut cluster = app.cluster()?;
    let keys = Keys::generate().context("the lighthouse's keys")?;
    entry(&cluster.documents()?.lighthouses, &args, &keys)?;
    let connection = reached(app).await?;
    let lock = cluster.lock()?;
    cluster.reload_config()?;
    let held = cluster.documents()?;
    let new = entry(&held.lighthouses, &args, &keys)?;
    let mut list = held.lighthouses.clone();
    list.generation = next_generation(list.generation, words::now());
    list.lighthouses.push(new.clone());
    let set = sign(app, &cluster, &held, &list).map_err(|e| no_root(e, &cluster))?;
    let how = (args.listen, args.refill);
    let made = write_folder(&cluster, &set, list.generation, &keys, &new, how)?;
    cluster.save_documents(&set)?;
    cluster.set_way(&new, own.into_iter().collect());
    cluster.save_config()?;
    let documents = cluster.documents()?;
    drop(lock);
    tell(app, connection, documents).await;
    let done = Added {
        name: new.name,
        https: new.https,
        udp: new.udp,
        index: new.index,
        key: new.key.to_string(),
        lighthouses: list.generation,
        dir: made.dir,
    };
    app.print(&done, || {
        format!(
            "{dir} is lighthouse {name}, named by lighthouses document {generation}:\n  {https} (TCP), {udp} (UDP)\n\nNext: copy {dir} to its machine, then there:\n  holdfast lighthouse install --dir FOLDER\nMembers go to it as soon as it runs; `holdfast lighthouse list` shows whether it does. Seeds made from\nnow on name it too.",
            dir = done.dir.display(),
            name = done.name,
            generation = done.lighthouses,
            https = done.https.join(" "),
            udp = done.udp.join(" "),
        )
    })
}

/// Runs `remove`.
pub async fn remove(app: &App, args: RemoveArgs) -> Result<()> {
    #[derive(Serialize)]
    struct Removed {
        name: String,
        lighthouses: u64,
        kept: Option<PathBuf>,
    }
    let mut cluster = app.cluster()?;
    without(&cluster.documents()?.lighthouses, &args.name)?;
    // The one that goes is told too: members may know no other way to the news.
    let connection = reached(app).await?;
    let lock = cluster.lock()?;
    cluster.reload_config()?;
    let held = cluster.documents()?;
    let (mut list, gone) = without(&held.lighthouses, &args.name)?;
    list.generation = next_generation(list.generation, words::now());
    let set = sign(app, &cluster, &held, &list).map_err(|e| no_root(e, &cluster))?;
    cluster.save_documents(&set)?;
    let folder = cluster.lighthouse_of(&gone);
    cluster.set_way(&gone, vec![]);
    let unset = cluster.save_config();
    let documents = cluster.documents()?;
    drop(lock);
    // What is signed is told first: a file that cannot be written must not keep it back.
    tell(app, connection, documents).await;
    unset?;
    let kept = put_by(&folder, list.generation)?;
    let done = Removed {
        name: args.name,
        lighthouses: list.generation,
        kept,
    };
    app.print(&done, || {
        let kept = done.kept.as_ref().map_or_else(String::new, |kept| {
            format!("\nIts folder is kept as {}.", kept.display())
        });
        format!(
            "Lighthouses document {} names {} no more: members drop it as they learn of that.{kept}",
            done.lighthouses, done.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use holdfast_core::cluster::ClusterId;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: AddArgs,
    }

    fn add_to(held: &mut Lighthouses, line: &str) -> Result<Lighthouse> {
        let args = Line::try_parse_from(format!("add {line}").split(' '))?.args;
        let new = entry(held, &args, &Keys::generate().unwrap())?;
        held.lighthouses.push(new.clone());
        Ok(new)
    }

    #[test]
    fn each_has_a_name_an_index_and_places_of_its_own() {
        let mut held = Lighthouses {
            cluster: ClusterId([9; 16]),
            generation: 1,
            lighthouses: vec![],
        };
        let one = add_to(&mut held, "one --lighthouse a.example").unwrap();
        assert_eq!(one.index, MeshIndex::LIGHTHOUSE);
        let two = add_to(
            &mut held,
            "two --lighthouse b.example:8443 --lighthouse 2001:db8::1 --lighthouse [2001:db8::2]:9 --udp-port 7",
        )
        .unwrap();
        assert_eq!(two.index.get(), 2);
        let https = ["b.example:8443", "[2001:db8::1]:443", "[2001:db8::2]:9"];
        assert_eq!(two.https, https);
        let udp = ["b.example:7", "[2001:db8::1]:7", "[2001:db8::2]:7"];
        assert_eq!(two.udp, udp);
        for (bad, why) in [
            ("two --lighthouse c.example", "restore --name two"),
            ("three --lighthouse a.example", "lighthouse one is at"),
            ("three --lighthouse https://c", "host name"),
            ("Three --lighthouse c.example", "a-z"),
            ("../x --lighthouse c.example", "a-z"),
            ("three", "--lighthouse"),
        ] {
            let said = add_to(&mut held, bad).unwrap_err().to_string();
            assert!(said.contains(why), "{bad}: {said}");
        }
        // The lowest that is free; that of one that was removed may be taken again.
        let (mut rest, gone) = without(&held, "one").unwrap();
        assert_eq!((gone.name.as_str(), rest.lighthouses.len()), ("one", 1));
        let said = without(&rest, "two").unwrap_err().to_string();
        assert!(said.contains("last") && said.contains("add"), "{said}");
        assert!(
            without(&rest, "one")
                .unwrap_err()
                .to_string()
                .contains("list")
        );
        let three = add_to(&mut rest, "three --lighthouse c.example").unwrap();
        assert_eq!(three.index, MeshIndex::LIGHTHOUSE);
        for n in 0..MOST_LIGHTHOUSES - 2 {
            add_to(&mut rest, &format!("more{n} --lighthouse m{n}.example")).unwrap();
        }
        let said = add_to(&mut rest, "most --lighthouse x.example").unwrap_err();
        assert!(said.to_string().contains("remove"), "{said}");
    }
}
