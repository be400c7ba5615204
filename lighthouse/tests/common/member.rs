//! A small mesh member that does what an agent does: joins, asks for relays, stands in for UDP.

use super::testing::*;
use super::{Lab, PATIENCE};
use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::{OfferRequest, RelayRequest};
use holdfast_core::grant::Grant;
use holdfast_mesh::{
    Channel, MTU, Mesh, MeshHandle, MeshKey, MeshPrivateKey, MeshSocket, MeshStream, Netstack,
    PeerConfig, PeerStatus, Way,
};
use holdfast_tls::Identity;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

/// What members need of the lighthouse.
#[derive(Clone)]
pub struct Contact {
    pub https: SocketAddr,
    pub udp: SocketAddr,
    pub key: holdfast_core::keys::PublicKey,
    pub mesh_key: MeshKey,
    pub grant: Grant,
}

impl Contact {
    /// Of a lighthouse on loopback.
    pub fn of(lab: &Lab, grant: &Grant) -> Self {
        Self {
            https: lab.running().https[0],
            udp: SocketAddr::from(([127, 0, 0, 1], lab.running().udp)),
            key: lab.keys.tls.public(),
            mesh_key: lab.keys.identity().mesh_key,
            grant: grant.clone(),
        }
    }

    pub fn client(&self, n: u8) -> LighthouseClient {
        let identity = Identity::from_key(&key(n)).unwrap();
        LighthouseClient::new(vec![self.https.to_string()], self.key, Some(&identity)).unwrap()
    }

    fn as_peer(&self) -> PeerConfig {
        PeerConfig {
            public_key: self.mesh_key,
            allowed_ips: vec![IpAddr::from(cluster().plan().address4(index(1))).into()],
            endpoint: Some(self.udp),
            keepalive: Some(25),
            always_on: true,
            plain: false,
            relay: true,
        }
    }
}

pub struct Member {
    pub mesh: MeshHandle,
    pub stack: Netstack,
    pub inner: IpAddr,
    contact: Contact,
}

impl Member {
    /// Node `n` joins; its peers are told `local`, and it seeks none in `avoid`.
    pub async fn join(
        contact: &Contact,
        n: u8,
        socket: MeshSocket,
        local: Vec<SocketAddr>,
        avoid: Vec<IpNet>,
    ) -> Self {
        let g = &contact.grant;
        let secret = MeshPrivateKey::from_bytes([n + 70; 32]);
        let client = Arc::new(contact.client(n));
        let request = OfferRequest {
            grant: g.id.clone(),
            signing_key: Lab::public(n),
        };
        let begun = Instant::now();
        let offer = loop {
            match client.offer(&request).await {
                // A network that was just made may not carry yet.
                Err(ClientError::Unreachable(_)) if begun.elapsed() < PATIENCE => {
                    sleep(Duration::from_millis(20)).await;
                }
                offer => break offer.unwrap(),
            }
        };
        let mut record = record(n, &format!("n{n}"), offer.index.get(), g);
        record.mesh_key = secret.public();
        client.join(member(&record, g, 50)).await.unwrap();
        let inner = IpAddr::from(cluster().plan().address4(record.index));
        let (stack, device) = Netstack::new(&[inner.into()], MTU).unwrap();
        let mesh = Mesh::start(device, socket, &secret);
        mesh.set_places(local, avoid);
        let (asked, mut wanted) = (mesh.clone(), mesh.relay_wanted().unwrap());
        let caller = client.clone();
        tokio::spawn(async move {
            while let Some(peer) = wanted.recv().await {
                if let Ok(r) = caller.relay(&RelayRequest { peer }).await {
                    let _ = asked.set_channel(peer, r.lighthouse, Channel(r.channel));
                }
            }
        });
        let (carried, lighthouse) = (mesh.clone(), contact.mesh_key);
        tokio::spawn(async move {
            let open = || client.mesh_stream();
            carried.stand_in(lighthouse, open).await;
        });
        Self {
            mesh,
            stack,
            inner,
            contact: contact.clone(),
        }
    }

    pub fn as_peer(&self) -> PeerConfig {
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

    /// Knows the lighthouse, with a session, and `other`.
    pub async fn meet(&self, other: PeerConfig) {
        self.mesh
            .set_peers(&[self.contact.as_peer(), other])
            .unwrap();
        let session = self.mesh.wait_handshake(self.contact.mesh_key, PATIENCE);
        session.await.unwrap();
    }

    pub fn status(&self, of: MeshKey) -> PeerStatus {
        let all = self.mesh.status();
        all.into_iter().find(|s| s.public_key == of).unwrap()
    }

    pub fn way(&self, to: MeshKey) -> Option<Way> {
        self.status(to).way
    }

    /// Of the lighthouse.
    pub fn lighthouse(&self) -> PeerStatus {
        self.status(self.contact.mesh_key)
    }
}

/// A byte goes there and back; what came back.
pub async fn ask(stream: &mut MeshStream) -> u8 {
    let mut answer = [0];
    stream.write_all(&[1]).await.unwrap();
    let read = timeout(PATIENCE, stream.read_exact(&mut answer));
    read.await.unwrap().unwrap();
    answer[0]
}

/// `bytes` go there and come back.
pub async fn echo(stream: &mut MeshStream, bytes: &[u8]) {
    assert!(echoes(stream, bytes, PATIENCE).await, "no answer");
}

/// Whether `bytes` go there and come back in time.
pub async fn echoes(stream: &mut MeshStream, bytes: &[u8], limit: Duration) -> bool {
    let mut back = vec![0; bytes.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let both = async { tokio::join!(writer.write_all(bytes), reader.read_exact(&mut back)) };
    let Ok((wrote, read)) = timeout(limit, both).await else {
        return false;
    };
    wrote.unwrap();
    read.unwrap();
    assert!(back == bytes);
    true
}
