//! What a node says of itself, and who says too much, too often or nonsense.

mod common;

use common::testing::*;
use common::{Lab, kind};
use holdfast_client::ClientError;
use holdfast_core::api::ApiErrorKind as Kind;
use holdfast_core::names::Role;
use holdfast_core::signed::Signed;
use holdfast_core::status::{BootStatus, K3sState, NodeStatus, SlotName};
use holdfast_tls::{Identity, client_config, connect};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn status(counter: u64) -> NodeStatus {
    NodeStatus {
        cluster: CLUSTER,
        name: "n1".parse().unwrap(),
        role: Role::Bare,
        index: index(16),
        counter,
        uptime: 1,
        boot: BootStatus {
            boot_id: "00".into(),
            slot: SlotName::A,
            version: "1".into(),
            generation: 1,
            on_trial: false,
            reason: "factory".into(),
            slots: vec![],
        },
        k3s: K3sState::None,
        k3s_info: None,
        handshake_age: None,
        memory: None,
        documents: None,
        notes: vec![],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_signed_by_its_node_and_never_goes_back() {
    let lab = Lab::with_node().await;
    let node = lab.client(Some(1));
    let signed = |counter, n| Signed::sign(&status(counter), &key(n)).unwrap();
    node.put_status(&signed(5, 1)).await.unwrap();
    assert_eq!(kind(node.put_status(&signed(4, 1)).await), Kind::Older);
    assert_eq!(
        kind(node.put_status(&signed(6, 2)).await),
        Kind::RecordRefused
    );
    assert_eq!(
        kind(lab.client(Some(2)).put_status(&signed(6, 2)).await),
        Kind::Denied
    );
    let nodes = lab.operator().nodes().await.unwrap();
    assert_eq!(nodes[0].status, Some(signed(5, 1)));
    assert!(nodes[0].status_age.unwrap() < 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_short_and_not_too_many() {
    let lab = Lab::with_node().await;
    let node = lab.client(Some(1));
    let long = NodeStatus {
        notes: vec!["x".repeat(64 << 10)],
        ..status(1)
    };
    let long = Signed::sign(&long, &key(1)).unwrap();
    assert_eq!(kind(node.put_status(&long).await), Kind::Malformed);
    let mut sent = 0;
    let refused = loop {
        let status = Signed::sign(&status(5), &key(1)).unwrap();
        match node.put_status(&status).await {
            Ok(()) => sent += 1,
            refused => break refused,
        }
        assert!(sent < 1000);
    };
    assert_eq!(kind(refused), Kind::Busy);
    // As many as come in a burst were taken.
    assert!(sent >= 19, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_lists_and_documents_are_not_given_without_end() {
    let lab = Lab::with_node().await;
    let node = lab.client(Some(1));
    let busy = |of: &str, answer: Result<(), ClientError>, n: usize| {
        let over = answer.is_err_and(|e| e.kind() == Some(Kind::Busy));
        assert!(over || n < 1000, "{of}");
        over
    };
    // A revision that is none: as good as none.
    let mut asked = 0;
    while !busy(
        "lists",
        node.news(asked as u64 % 2, Duration::ZERO).await.map(drop),
        asked,
    ) {
        asked += 1;
    }
    assert!(asked >= 60, "{asked}");
    for n in [1, 77] {
        let client = lab.client(Some(n));
        let mut asked = 0;
        while !busy("documents", client.documents().await.map(drop), asked) {
            asked += 1;
        }
        assert!(asked >= 50, "{asked}");
    }
    lab.operator().documents().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rude_clients_get_an_answer_or_the_door() {
    let lab = Lab::with_node().await;
    let address = lab.running().https[0];
    let say = async |text: &[u8]| {
        let tcp = TcpStream::connect(address).await.unwrap();
        let identity = Identity::from_key(&key(OPERATOR)).unwrap();
        let config = client_config(Some(&identity), lab.keys.tls.public(), &[]).unwrap();
        let mut tls = connect(tcp, config).await.unwrap();
        let _ = tls.write_all(text).await;
        let mut answer = vec![];
        let _ = tls.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let close = "Connection: close\r\nHost: x\r\n";
    let nowhere = say(format!("GET /nowhere HTTP/1.1\r\n{close}\r\n").as_bytes()).await;
    assert!(
        nowhere.starts_with("HTTP/1.1 404") && nowhere.contains("not-found"),
        "{nowhere}"
    );
    let method = say(format!("DELETE /v1/nodes HTTP/1.1\r\n{close}\r\n").as_bytes()).await;
    assert!(
        method.starts_with("HTTP/1.1 400") && method.contains("malformed"),
        "{method}"
    );
    let put = format!("PUT /v1/documents HTTP/1.1\r\n{close}Content-Length: 3\r\n\r\n{{x}}");
    let body = say(put.as_bytes()).await;
    assert!(
        body.starts_with("HTTP/1.1 400") && body.contains("does not parse"),
        "{body}"
    );
    let long = format!("PUT /v1/documents HTTP/1.1\r\n{close}Content-Length: 9000000\r\n\r\n");
    let long = [long.into_bytes(), vec![b' '; 4_500_000]].concat();
    let long = say(&long).await;
    assert!(
        long.is_empty() || long.starts_with("HTTP/1.1 400"),
        "{long}"
    );
    let head = format!(
        "GET /v1/health HTTP/1.1\r\nX: {}\r\n\r\n",
        "y".repeat(40_000)
    );
    assert!(say(head.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let path = say(format!("PUT /v1/grants/..%2Fx HTTP/1.1\r\n{close}\r\n").as_bytes()).await;
    assert!(path.starts_with("HTTP/1.1 400"), "{path}");
    let blob =
        say(format!("GET /v1/blobs/..%2Fkeys.toml HTTP/1.1\r\n{close}\r\n").as_bytes()).await;
    assert!(blob.starts_with("HTTP/1.1 400"), "{blob}");
    let plain = say(format!("GET /v1/control/n1 HTTP/1.1\r\n{close}\r\n").as_bytes()).await;
    assert!(
        plain.starts_with("HTTP/1.1 400") && plain.contains("Upgrade"),
        "{plain}"
    );
    // No TLS at all.
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = vec![];
    let _ = tcp.read_to_end(&mut answer).await;
    lab.operator().health().await.unwrap();
}
