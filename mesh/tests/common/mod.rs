//! Mesh members on loopback, without root.
#![allow(dead_code, missing_docs, reason = "each test file uses its own share")]

use holdfast_mesh::{
    MTU, Mesh, MeshHandle, MeshKey, MeshPrivateKey, MeshSocket, Netstack, PeerConfig,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A member with a userspace TCP stack.
pub struct Member {
    pub mesh: MeshHandle,
    pub stack: Netstack,
    pub key: MeshPrivateKey,
    pub number: u8,
}

pub fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, number)
}

pub fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())
}

impl Member {
    pub fn start(number: u8) -> Self {
        Self::start_with(number, MeshPrivateKey::generate().unwrap(), 0)
    }

    pub fn start_with(number: u8, key: MeshPrivateKey, port: u16) -> Self {
        let addresses = [
            format!("{}/32", v4(number)).parse().unwrap(),
            format!("{}/128", v6(number)).parse().unwrap(),
        ];
        let (stack, device) = Netstack::new(&addresses, MTU).unwrap();
        let socket = MeshSocket::bind_to(([127, 0, 0, 1], port).into()).unwrap();
        let mesh = Mesh::start(device, socket, &key);
        Self {
            mesh,
            stack,
            key,
            number,
        }
    }

    pub fn endpoint(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.mesh.port()).into()
    }

    /// This member as others see it.
    pub fn as_peer(&self, endpoint: bool) -> PeerConfig {
        PeerConfig {
            public_key: self.mesh.public_key(),
            allowed_ips: vec![
                format!("{}/32", v4(self.number)).parse().unwrap(),
                format!("{}/128", v6(self.number)).parse().unwrap(),
            ],
            endpoint: endpoint.then(|| self.endpoint()),
            keepalive: None,
            always_on: false,
            plain: false,
            relay: false,
        }
    }

    pub async fn handshake(&self, with: MeshKey) {
        self.mesh.wait_handshake(with, PATIENCE).await.unwrap();
    }
}

/// Two members that know each other; only the first knows where the other is.
pub async fn pair() -> (Member, Member) {
    let (a, b) = (Member::start(1), Member::start(2));
    b.mesh.set_peers(&[a.as_peer(false)]).unwrap();
    a.mesh.set_peers(&[b.as_peer(true)]).unwrap();
    a.handshake(b.mesh.public_key()).await;
    (a, b)
}

/// `future` within [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}
