//! Two members that cannot reach each other directly: the lighthouse relays, until they can.

mod common;

use common::testing::*;
use common::{Lab, current, kind};
use holdfast_client::LighthouseClient;
use holdfast_core::api::{ApiErrorKind, OfferRequest, RelayRequest};
use holdfast_core::grant::Grant;
use holdfast_mesh::{
    Channel, MTU, Mesh, MeshHandle, MeshKey, MeshPrivateKey, MeshSocket, Netstack, PeerConfig, Way,
};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(60);

struct Member {
    mesh: MeshHandle,
    stack: Netstack,
    inner: IpAddr,
}

impl Member {
    async fn join(lab: &Lab, n: u8, g: &Grant) -> Self {
        let secret = MeshPrivateKey::from_bytes([n + 70; 32]);
        let client = lab.client(Some(n));
        let request = OfferRequest {
            grant: g.id.clone(),
            signing_key: Lab::public(n),
        };
        let offer = client.offer(&request).await.unwrap();
        let mut record = record(n, &format!("n{n}"), offer.index.get(), g);
        record.mesh_key = secret.public();
        client.join(member(&record, g, 50)).await.unwrap();

        let inner = IpAddr::from(cluster().plan().address4(record.index));
        let (stack, device) = Netstack::new(&[inner.into()], MTU).unwrap();
        let socket = MeshSocket::bind_to(common::loopback()).unwrap();
        let mesh = Mesh::start(device, socket, &secret);
        let asked = mesh.clone();
        let mut wanted = mesh.relay_wanted().unwrap();
        tokio::spawn(async move {
            while let Some(peer) = wanted.recv().await {
                ask(&client, &asked, peer).await;
            }
        });
        Self { mesh, stack, inner }
    }

    fn as_peer(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.mesh.public_key(),
            allowed_ips: vec![self.inner.into()],
            endpoint: None,
            keepalive: None,
            always_on: false,
            plain: false,
            relay: false,
        }
    }

    /// Knows the lighthouse and `other`.
    async fn meet(&self, lab: &Lab, other: &Self) {
        let lighthouse = lab.keys.identity().mesh_key;
        let at = PeerConfig {
            public_key: lighthouse,
            allowed_ips: vec![IpAddr::from(cluster().plan().address4(index(1))).into()],
            endpoint: Some(SocketAddr::from(([127, 0, 0, 1], lab.running().udp))),
            keepalive: Some(25),
            always_on: true,
            plain: false,
            relay: true,
        };
        self.mesh.set_peers(&[at, other.as_peer()]).unwrap();
        self.mesh
            .wait_handshake(lighthouse, PATIENCE)
            .await
            .unwrap();
    }

    fn way(&self, to: &Self) -> Option<Way> {
        let all = self.mesh.status();
        let key = to.mesh.public_key();
        all.into_iter().find(|s| s.public_key == key)?.way
    }
}

async fn ask(client: &LighthouseClient, mesh: &MeshHandle, peer: MeshKey) {
    if let Ok(reply) = client.relay(&RelayRequest { peer }).await {
        let _ = mesh.set_channel(peer, reply.lighthouse, Channel(reply.channel));
    }
}

/// `bytes` go there and come back.
async fn echo(stream: &mut holdfast_mesh::MeshStream, bytes: &[u8]) {
    let mut back = vec![0; bytes.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (wrote, read) = tokio::join!(writer.write_all(bytes), reader.read_exact(&mut back));
    wrote.unwrap();
    read.unwrap();
    assert!(back == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_moves_from_relay_to_direct_and_loses_nothing() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 2);
    lab.hand_over(&g).await.unwrap();
    let (one, two) = (
        Member::join(&lab, 1, &g).await,
        Member::join(&lab, 2, &g).await,
    );
    // Neither seeks the other on loopback: as good as a NAT.
    let nowhere: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
    one.mesh.set_places(vec![], nowhere.clone());
    two.mesh.set_places(vec![], nowhere);
    one.meet(&lab, &two).await;
    two.meet(&lab, &one).await;
    let mut listener = two.stack.listen(7000).unwrap();
    tokio::spawn(async move {
        let stream = listener.accept().await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let begun = Instant::now();
    let mut stream = one.stack.connect((two.inner, 7000).into()).await.unwrap();
    println!("relayed connection within {:?}", begun.elapsed());
    let bytes: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    echo(&mut stream, &bytes).await;
    assert!(one.way(&two).is_some_and(Way::is_relayed));
    assert!(two.way(&one).is_some_and(Way::is_relayed));

    // They find each other where the lighthouse saw them.
    one.mesh.set_places(vec![], vec![]);
    two.mesh.set_places(vec![], vec![]);
    one.mesh.knock();
    let begun = Instant::now();
    while one.way(&two).is_none_or(Way::is_relayed) || two.way(&one).is_none_or(Way::is_relayed) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", one.way(&two));
        echo(&mut stream, &bytes[..1000]).await;
        sleep(Duration::from_millis(5)).await;
    }
    println!("direct within {:?}", begun.elapsed());
    echo(&mut stream, &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_for_members_and_to_members() {
    let lab = Lab::new().await;
    let g = current("g1", 50, 1);
    lab.hand_over(&g).await.unwrap();
    let one = Member::join(&lab, 1, &g).await;
    let own = one.mesh.public_key();
    let ask = async |n: u8, peer| lab.client(Some(n)).relay(&RelayRequest { peer }).await;
    assert_eq!(kind(ask(9, own).await), ApiErrorKind::Denied);
    // Neither itself nor a stranger.
    assert_eq!(kind(ask(1, own).await), ApiErrorKind::NotFound);
    let stranger = MeshKey([9; 32]);
    assert_eq!(kind(ask(1, stranger).await), ApiErrorKind::NotFound);
}
