//! A node in the mesh: control streams go through it, its endpoint is seen, a restart is got over.

mod common;

use common::testing::*;
use common::{Lab, current};
use holdfast_core::api::OfferRequest;
use holdfast_core::cluster::CONTROL_PORT;
use holdfast_mesh::{MTU, Mesh, MeshPrivateKey, MeshSocket, Netstack, PeerConfig};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// Says hello to everyone who connects to its control port.
async fn node(lab: &Lab) -> holdfast_mesh::MeshHandle {
    let secret = MeshPrivateKey::from_bytes([77; 32]);
    let g = current("g1", 50, 1);
    lab.hand_over(&g).await.unwrap();
    let client = lab.client(Some(1));
    let request = OfferRequest {
        grant: g.id.clone(),
        signing_key: Lab::public(1),
    };
    let offer = client.offer(&request).await.unwrap();
    let mut record = record(1, "n1", offer.index.get(), &g);
    record.mesh_key = secret.public();
    client.join(member(&record, &g, 50)).await.unwrap();

    let plan = cluster().plan();
    let own = IpAddr::from(plan.address4(record.index));
    let (stack, device) = Netstack::new(&[own.into()], MTU).unwrap();
    let mesh = Mesh::start(
        device,
        MeshSocket::bind_to(common::loopback()).unwrap(),
        &secret,
    );
    let lighthouse = IpAddr::from(plan.address4(index(1)));
    mesh.set_peers(&[PeerConfig {
        public_key: lab.keys.identity().mesh_key,
        allowed_ips: vec![lighthouse.into()],
        endpoint: Some(SocketAddr::from(([127, 0, 0, 1], lab.running().udp))),
        keepalive: Some(25),
        always_on: true,
        plain: false,
        relay: false,
    }])
    .unwrap();
    let mut listener = stack.listen(CONTROL_PORT).unwrap();
    tokio::spawn(async move {
        while let Ok(mut stream) = listener.accept().await {
            tokio::spawn(async move {
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                stream
                    .write_all(format!("hello {text}").as_bytes())
                    .await
                    .unwrap();
                stream.shutdown().await.unwrap();
            });
        }
    });
    mesh
}

async fn ask(lab: &Lab, text: &str) -> Option<String> {
    let mut stream = lab.operator().control(&"n1".parse().unwrap()).await.ok()?;
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn control_streams_go_through_the_mesh_and_survive_a_restart() {
    let mut lab = Lab::new().await;
    let mesh = node(&lab).await;
    mesh.wait_handshake(lab.keys.identity().mesh_key, PATIENCE)
        .await
        .unwrap();
    assert_eq!(ask(&lab, "ada").await.unwrap(), "hello ada");
    let long = "x".repeat(1_000_000);
    assert!(ask(&lab, &long).await.unwrap() == format!("hello {long}"));
    let seen = timeout(PATIENCE, async {
        loop {
            let entry = lab.operator().nodes().await.unwrap().remove(0);
            if entry.endpoint.is_some() {
                break entry;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(seen.endpoint, Some(([127, 0, 0, 1], mesh.port()).into()));
    assert!(seen.handshake_age.unwrap() < 60 && !seen.standing);

    // On the same port again, and with what was seen remembered.
    let udp = lab.running().udp;
    lab.stop().await;
    let mut config = lab.config();
    config.udp = Some(([127, 0, 0, 1], udp).into());
    lab.lighthouse = Some(
        holdfast_lighthouse::Lighthouse::start(config)
            .await
            .unwrap(),
    );
    assert_eq!(
        lab.operator().nodes().await.unwrap()[0].endpoint,
        seen.endpoint
    );
    let answer = timeout(PATIENCE, async {
        loop {
            match ask(&lab, "again").await {
                Some(answer) => break answer,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert_eq!(answer.await.unwrap(), "hello again");
}
