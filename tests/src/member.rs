//! A member of the mesh inside the test's own process: it joins with a seed as a node does, and
//! opens TCP connections to nodes over WireGuard.

use anyhow::{Context as _, Result, bail, ensure};
use holdfast_client::LighthouseClient;
use holdfast_core::api::{ApiErrorKind, OfferRequest};
use holdfast_core::cluster::AddressPlan;
use holdfast_core::documents::accept;
use holdfast_core::grant::{Member, MemberRecord};
use holdfast_core::keys::{MeshKey, PrivateKey};
use holdfast_core::peers;
use holdfast_core::seed::Seed;
use holdfast_core::signed::Signed;
use holdfast_mesh::{
    MTU, Mesh, MeshHandle, MeshPrivateKey, MeshSocket, MeshStream, Netstack, PeerConfig,
};
use holdfast_tls::Identity;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

/// Addresses on which a lighthouse of a lab is reached from the host.
const REACH: &str = "127.0.0.1";

/// A member without a machine.
pub struct ProbeMember {
    runtime: Runtime,
    mesh: MeshHandle,
    stack: Netstack,
    plan: AddressPlan,
    key: MeshPrivateKey,
    signing: PrivateKey,
    /// The members that the lighthouse named when this one joined.
    met: Vec<(String, MeshKey)>,
}

/// How an attempt to connect ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Something listens there.
    Accepted,
    /// It came through, and nothing listens there.
    Refused,
    /// Nothing came back in time.
    Silence,
}

/// An open connection through the mesh.
pub struct Connection<'a> {
    runtime: &'a Runtime,
    stream: MeshStream,
}

impl ProbeMember {
    /// Joins with the seed in `file`. `endpoints` are where nodes can be reached from here, by
    /// name: a virtual machine's forwarded port.
    ///
    /// # Errors
    /// Whatever a joining node could meet.
    pub fn join(file: &Path, endpoints: &[(&str, SocketAddr)]) -> Result<Self> {
        let runtime = Runtime::new()?;
        let signing = PrivateKey::from_bytes(random()?);
        let (mesh, stack, plan, key, met) = runtime.block_on(join(file, &signing, endpoints))?;
        Ok(Self {
            runtime,
            mesh,
            stack,
            plan,
            key,
            signing,
            met,
        })
    }

    /// Asks a lighthouse to be let in again, with the same seed and keys; why it refuses.
    ///
    /// # Errors
    /// It is let in, or does not get an answer.
    pub fn refused_again(&self, file: &Path) -> Result<ApiErrorKind> {
        let seed = Seed::parse(&std::fs::read_to_string(file)?)?;
        let client = client(&seed, &self.signing)?;
        let request = OfferRequest {
            grant: seed.grant.clone(),
            signing_key: self.signing.public(),
        };
        match self.runtime.block_on(client.offer(&request)) {
            Ok(offer) => bail!("let in again, as {:?}", offer.index),
            Err(e) => e.kind().with_context(|| format!("no answer: {e}")),
        }
    }

    /// A member with a key that nobody granted, which knows all public facts that `member` knows.
    ///
    /// # Errors
    /// No socket.
    pub fn impostor(
        member: &Self,
        peer: MeshKey,
        allowed: IpAddr,
        endpoint: SocketAddr,
    ) -> Result<Self> {
        let runtime = Runtime::new()?;
        let plan = member.plan.clone();
        let key = MeshPrivateKey::generate()?;
        let (mesh, stack) = runtime.block_on(async {
            let own = plan.address4(holdfast_core::cluster::MeshIndex::LAST);
            let (stack, device) = Netstack::new(&[IpAddr::from(own).into()], MTU)?;
            let mesh = Mesh::start(device, MeshSocket::bind(0)?, &key);
            mesh.set_peers(&[PeerConfig {
                public_key: peer,
                allowed_ips: vec![allowed.into()],
                endpoint: Some(endpoint),
                keepalive: None,
                always_on: true,
                plain: false,
                relay: false,
            }])?;
            anyhow::Ok((mesh, stack))
        })?;
        Ok(Self {
            runtime,
            mesh,
            stack,
            plan,
            key,
            signing: PrivateKey::from_bytes(random()?),
            met: vec![],
        })
    }

    /// The WireGuard key of this member.
    #[must_use]
    pub fn mesh_key(&self) -> MeshKey {
        self.key.public()
    }

    /// Waits for a handshake with the member called `name`: then it knows this one.
    ///
    /// # Errors
    /// There was no such member at the join, or it does not answer within `limit`.
    pub fn meets(&self, name: &str, limit: Duration) -> Result<()> {
        let (_, key) = self
            .met
            .iter()
            .find(|(n, _)| n == name)
            .with_context(|| format!("{name} was no member at the join"))?;
        ensure!(
            self.handshakes_with(*key, limit),
            "{name}: no handshake within {} s",
            limit.as_secs()
        );
        Ok(())
    }

    /// Whether a handshake with `peer` completes within `limit`.
    #[must_use]
    pub fn handshakes_with(&self, peer: MeshKey, limit: Duration) -> bool {
        self.runtime
            .block_on(self.mesh.wait_handshake(peer, limit))
            .is_ok()
    }

    /// What comes of a TCP connection to a node's mesh address, within `limit`.
    ///
    /// # Errors
    /// Anything but an answer or none.
    pub fn tries(&self, address: IpAddr, port: u16, limit: Duration) -> Result<Attempt> {
        let connecting = self.stack.connect(SocketAddr::new(address, port));
        let limited = async { tokio::time::timeout(limit, connecting).await };
        match self.runtime.block_on(limited) {
            Ok(Ok(_)) => Ok(Attempt::Accepted),
            Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => Ok(Attempt::Refused),
            Ok(Err(e)) if e.kind() != ErrorKind::TimedOut => Err(e.into()),
            _ => Ok(Attempt::Silence),
        }
    }

    /// Opens a TCP connection to a node's mesh address.
    ///
    /// # Errors
    /// It is not accepted within 30 s.
    pub fn connect(&self, address: IpAddr, port: u16) -> Result<Connection<'_>> {
        let connecting = self.stack.connect(SocketAddr::new(address, port));
        let limited = async { tokio::time::timeout(Duration::from_secs(30), connecting).await };
        let stream = self
            .runtime
            .block_on(limited)
            .context("connecting through the mesh")??;
        Ok(Connection {
            runtime: &self.runtime,
            stream,
        })
    }
}

impl Connection<'_> {
    /// Sends a DNS message and returns the answer; over TCP each has its length before it (RFC 1035,
    /// 4.2.2).
    ///
    /// # Errors
    /// No answer within `limit`.
    pub fn asks(&mut self, query: &[u8], limit: Duration) -> Result<Vec<u8>> {
        let stream = &mut self.stream;
        let length = u16::try_from(query.len())?;
        let talk = async {
            stream.write_all(&length.to_be_bytes()).await?;
            stream.write_all(query).await?;
            stream.flush().await?;
            let mut answer = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut answer).await?;
            anyhow::Ok(answer)
        };
        self.runtime
            .block_on(async { tokio::time::timeout(limit, talk).await })
            .with_context(|| format!("no answer within {} s", limit.as_secs()))?
    }

    /// Sends a line and wants it back within `limit`.
    ///
    /// # Errors
    /// It does not come back, or comes back changed.
    pub fn echoes(&mut self, line: &str, limit: Duration) -> Result<()> {
        let stream = &mut self.stream;
        let talk = async {
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await?;
            let mut back = vec![0; line.len()];
            stream.read_exact(&mut back).await?;
            anyhow::Ok(back)
        };
        let back = self
            .runtime
            .block_on(async { tokio::time::timeout(limit, talk).await })
            .with_context(|| format!("no echo of {line:?} within {} s", limit.as_secs()))??;
        ensure!(back == line.as_bytes(), "{line:?} came back as {back:?}");
        Ok(())
    }
}

type Joined = (
    MeshHandle,
    Netstack,
    AddressPlan,
    MeshPrivateKey,
    Vec<(String, MeshKey)>,
);

fn random() -> Result<[u8; 32]> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
    Ok(random)
}

/// For the lighthouse of a lab.
fn client(seed: &Seed, signing: &PrivateKey) -> Result<LighthouseClient> {
    let pinned = seed
        .lighthouses
        .first()
        .context("a lighthouse in the seed")?;
    let port = pinned
        .https
        .first()
        .and_then(|a| a.rsplit_once(':'))
        .context("its port")?
        .1;
    Ok(LighthouseClient::new(
        vec![format!("{REACH}:{port}")],
        pinned.key,
        Some(&Identity::from_key(signing)?),
    )?)
}

async fn join(
    file: &Path,
    signing: &PrivateKey,
    endpoints: &[(&str, SocketAddr)],
) -> Result<Joined> {
    let seed = Seed::parse(&std::fs::read_to_string(file)?)?;
    let plan = AddressPlan::new(seed.cluster_id, seed.dual_stack);
    let key = MeshPrivateKey::generate()?;
    let client = client(&seed, signing)?;
    let offer = client
        .offer(&OfferRequest {
            grant: seed.grant.clone(),
            signing_key: signing.public(),
        })
        .await?;
    let record = MemberRecord {
        cluster: seed.cluster_id,
        grant: seed.grant.clone(),
        name: seed.name.clone().context("a name in the seed")?,
        index: offer.index,
        mesh_key: key.public(),
        signing_key: signing.public(),
        counter: 1,
        via: None,
        own: None,
    };
    let member = Member {
        record: Signed::sign(&record, &seed.token)?,
        grant: offer.grant,
    };
    let reply = client.join(member).await?;
    let documents = reply.documents;
    let roots = seed.roots();
    let operators = accept(&documents.operators, &roots, seed.cluster_id, None)?;
    let policy = accept(&documents.policy, &roots, seed.cluster_id, None)?;
    let known: Vec<(Member, Option<SocketAddr>)> = reply
        .members
        .members
        .iter()
        .map(|e| (e.member.clone(), None))
        .collect();
    let (wanted, refused) = peers::plan(
        &signing.public(),
        &plan,
        seed.cluster_id,
        &operators,
        &policy,
        &[],
        &known,
    );
    ensure!(refused.is_empty(), "members refused: {refused:?}");
    let met = wanted.iter().map(|p| (p.name.to_string(), p.key)).collect();
    let peers: Vec<PeerConfig> = wanted
        .into_iter()
        .map(|p| PeerConfig {
            public_key: p.key,
            allowed_ips: p.allowed_ips,
            endpoint: endpoints
                .iter()
                .find(|(n, _)| *n == p.name)
                .map(|(_, e)| *e),
            keepalive: None,
            always_on: true,
            plain: false,
            relay: false,
        })
        .collect();
    let own = IpAddr::from(plan.address4(record.index));
    let (stack, device) = Netstack::new(&[own.into()], MTU)?;
    let mesh = Mesh::start(device, MeshSocket::bind(0)?, &key);
    mesh.set_peers(&peers)?;
    Ok((mesh, stack, plan, key, met))
}
