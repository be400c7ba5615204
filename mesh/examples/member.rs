//! A mesh member without a control plane, for `make bench-mesh`: a TUN device, a UDP port, peers.
//!
//! `member TUN PORT < peers`: first line this member's private key, then a line for each peer:
//! key, inner network, endpoint or `-`. Says `up` once it runs, and ends with its input.

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_mesh::{Mesh, MeshPrivateKey, MeshSocket, PeerConfig, Tun};
use std::io::{BufRead as _, Read as _};

fn peer(line: &str) -> Result<PeerConfig> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [key, network, endpoint] = words[..] else {
        bail!("{line:?} is not KEY NETWORK ENDPOINT");
    };
    let endpoint = match endpoint {
        "-" => None,
        known => Some(known.parse().with_context(|| known.to_owned())?),
    };
    Ok(PeerConfig {
        public_key: key.parse().with_context(|| key.to_owned())?,
        allowed_ips: vec![network.parse().with_context(|| network.to_owned())?],
        endpoint,
        keepalive: None,
        always_on: endpoint.is_some(),
        plain: false,
        relay: false,
    })
}

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, tun, port] = &words[..] else {
        bail!("member TUN PORT < peers");
    };
    let mut lines = std::io::stdin().lock().lines();
    let key = lines.next().context("no private key on standard input")??;
    let mut peers = vec![];
    for line in lines {
        match line?.as_str() {
            "" => break,
            line => peers.push(peer(line)?),
        }
    }
    let key = MeshPrivateKey::from_text(&key)?;
    let mesh = Mesh::start(Tun::open(tun)?, MeshSocket::bind(port.parse()?)?, &key);
    mesh.set_peers(&peers)?;
    ensure!(mesh.port() > 0, "no port");
    println!("up");
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut vec![]));
    tokio::select! {
        why = mesh.stopped() => bail!("the mesh ended: {why}"),
        _ = end => Ok(()),
    }
}
