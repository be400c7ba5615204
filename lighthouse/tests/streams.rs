//! Control streams over the standing connection, bundles, statuses, and rude clients.

mod common;

use common::testing::*;
use common::{Lab, current, kind};
use holdfast_client::{ClientError, StandingEvent};
use holdfast_core::api::ApiErrorKind as Kind;
use holdfast_core::keys::Digest;
use holdfast_core::names::Role;
use holdfast_core::signed::Signed;
use holdfast_core::status::{BootStatus, K3sState, NodeStatus, SlotName};
use holdfast_tls::{ClientAuth, Identity, accept, client_config, connect, peer_key, server_config};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

async fn with_node() -> Lab {
    let lab = Lab::new().await;
    let g = current("g1", 50, 3);
    lab.hand_over(&g).await.unwrap();
    lab.join(1, "n1", &g, 50).await.unwrap();
    lab
}

/// A node that opens what it is asked to, and answers each line with the operator's key.
async fn fake_node(lab: &Lab) -> tokio::task::JoinHandle<()> {
    let client = Arc::new(lab.client(Some(1)));
    let mut standing = client.standing().await.unwrap();
    tokio::spawn(async move {
        while let Ok(StandingEvent::Open(id)) = standing.next().await {
            let client = client.clone();
            tokio::spawn(async move {
                let raw = client.splice(&id).await.unwrap();
                let identity = Identity::from_key(&key(1)).unwrap();
                let config = server_config(&identity, &[b"x"], ClientAuth::Required).unwrap();
                let mut tls = accept(raw, config).await.unwrap();
                let who = peer_key(tls.get_ref().1).unwrap();
                let mut text = String::new();
                tls.read_to_string(&mut text).await.unwrap();
                tls.write_all(format!("{text} from {who}").as_bytes())
                    .await
                    .unwrap();
                tls.shutdown().await.unwrap();
                // Dropping a socket with unread bytes would reset it, and cut off the answer.
                let _ = tls.get_mut().0.read_to_end(&mut vec![]).await;
            });
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_stream_runs_end_to_end_and_closes_one_side_at_a_time() {
    let lab = with_node().await;
    let name = "n1".parse().unwrap();
    assert_eq!(kind(lab.operator().control(&name).await), Kind::Unreachable);
    let node = fake_node(&lab).await;
    let ask = async |text: String| {
        let raw = lab.operator().control(&name).await.unwrap();
        let identity = Identity::from_key(&key(OPERATOR)).unwrap();
        let config = client_config(Some(&identity), Lab::public(1), &[b"x"]).unwrap();
        let mut tls = connect(raw, config).await.unwrap();
        tls.write_all(text.as_bytes()).await.unwrap();
        tls.shutdown().await.unwrap();
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let long = "x".repeat(3_000_000);
    let answers = tokio::join!(ask("a".into()), ask("b".into()), ask(long.clone()));
    let operator = Lab::public(OPERATOR);
    assert_eq!(answers.0, format!("a from {operator}"));
    assert_eq!(answers.1, format!("b from {operator}"));
    assert!(answers.2 == format!("{long} from {operator}"));
    assert!(lab.operator().nodes().await.unwrap()[0].standing);
    node.abort();
    let _ = node.await;
    while lab.operator().nodes().await.unwrap()[0].standing {
        tokio::task::yield_now().await;
    }
    assert_eq!(kind(lab.operator().control(&name).await), Kind::Unreachable);
    assert_eq!(kind(lab.client(Some(1)).control(&name).await), Kind::Denied);
    assert_eq!(
        kind(lab.operator().control(&"n9".parse().unwrap()).await),
        Kind::NotFound
    );
    assert_eq!(
        kind(lab.client(Some(1)).splice("0123").await),
        Kind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lighthouse_cannot_take_the_nodes_place_in_a_stream() {
    let lab = with_node().await;
    let client = Arc::new(lab.client(Some(1)));
    let mut standing = client.standing().await.unwrap();
    let name = "n1".parse().unwrap();
    let operator = async {
        let raw = lab.operator().control(&name).await.unwrap();
        let config = client_config(None, Lab::public(1), &[]).unwrap();
        connect(raw, config).await.err().unwrap()
    };
    let imposter = async {
        let StandingEvent::Open(id) = standing.next().await.unwrap();
        let raw = client.splice(&id).await.unwrap();
        // Everything that a lighthouse has: its own key.
        let identity = Identity::from_key(&lab.keys.tls).unwrap();
        accept(
            raw,
            server_config(&identity, &[], ClientAuth::None).unwrap(),
        )
        .await
        .err()
    };
    let (error, _) = tokio::join!(operator, imposter);
    assert!(holdfast_tls::pin_mismatch(&error).is_some(), "{error}");
}

/// Everything that passed through a stream, both ways.
struct Recorded<S> {
    stream: S,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, into);
        self.seen.lock().unwrap().extend(&into.filled()[before..]);
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = done {
            self.seen.lock().unwrap().extend(&bytes[..n]);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_lighthouse_forwards_tells_it_nothing() {
    const ASKED: &[u8] = b"what only the node may read";
    const ANSWERED: &[u8] = b"what only the operator may read";
    let lab = with_node().await;
    let client = Arc::new(lab.client(Some(1)));
    let mut standing = client.standing().await.unwrap();
    let seen = Arc::new(Mutex::new(vec![]));
    let node = async {
        let StandingEvent::Open(id) = standing.next().await.unwrap();
        // The bytes here are the bytes that the lighthouse copied.
        let raw = Recorded {
            stream: client.splice(&id).await.unwrap(),
            seen: seen.clone(),
        };
        let identity = Identity::from_key(&key(1)).unwrap();
        let config = server_config(&identity, &[b"x"], ClientAuth::Required).unwrap();
        let mut tls = accept(raw, config).await.unwrap();
        let mut asked = vec![0; ASKED.len()];
        tls.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, ASKED);
        tls.write_all(ANSWERED).await.unwrap();
        tls.flush().await.unwrap();
        let _ = tls.read_to_end(&mut vec![]).await;
    };
    let operator = async {
        let raw = lab
            .operator()
            .control(&"n1".parse().unwrap())
            .await
            .unwrap();
        let identity = Identity::from_key(&key(OPERATOR)).unwrap();
        let config = client_config(Some(&identity), Lab::public(1), &[b"x"]).unwrap();
        let mut tls = connect(raw, config).await.unwrap();
        tls.write_all(ASKED).await.unwrap();
        let mut answer = vec![0; ANSWERED.len()];
        tls.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, ANSWERED);
        tls.shutdown().await.unwrap();
    };
    tokio::join!(node, operator);
    let seen = seen.lock().unwrap();
    assert!(seen.len() > ASKED.len() + ANSWERED.len());
    // Not even whose key it is: certificates are encrypted in TLS 1.3.
    let operator = Lab::public(OPERATOR);
    for secret in [ASKED, ANSWERED, &operator.0[..]] {
        assert!(!seen.windows(secret.len()).any(|w| w == secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_go_up_and_come_down_in_parts() {
    let lab = with_node().await;
    let bytes: Vec<u8> = (0..5_000_000u32)
        .map(|i| (i.wrapping_mul(i) >> 7) as u8)
        .collect();
    let digest = Digest::of(&bytes);
    let file = lab.tmp.path().join("bundle");
    std::fs::write(&file, &bytes).unwrap();
    let (node, operator) = (lab.client(Some(1)), lab.operator());
    assert_eq!(
        kind(
            lab.client(Some(LOOKER))
                .upload_blob(&digest, &file, |_, _| ())
                .await
        ),
        Kind::Denied
    );
    assert_eq!(node.blob_len(&digest).await.unwrap(), None);
    assert_eq!(kind(node.open_blob(&digest, 0, None).await), Kind::NotFound);
    let wrong = operator
        .upload_blob(&Digest::of(b"other"), &file, |_, _| ())
        .await;
    assert_eq!(kind(wrong), Kind::Malformed);
    let seen = Arc::new(Mutex::new(vec![]));
    let note = seen.clone();
    operator
        .upload_blob(&digest, &file, move |done, total| {
            note.lock().unwrap().push((done, total))
        })
        .await
        .unwrap();
    assert_eq!(
        *seen.lock().unwrap().last().unwrap(),
        (5_000_000, 5_000_000)
    );
    assert!(seen.lock().unwrap().len() > 10);

    assert_eq!(node.blob_len(&digest).await.unwrap(), Some(5_000_000));
    let mut got = vec![];
    let total = node
        .download_blob(&digest, 0, &mut got, |_, _| ())
        .await
        .unwrap();
    assert!(total == 5_000_000 && got == bytes);
    let mut rest = vec![];
    node.download_blob(&digest, 4_000_000, &mut rest, |_, _| ())
        .await
        .unwrap();
    assert!(rest == bytes[4_000_000..]);
    // All of it is there already.
    assert_eq!(
        node.download_blob(&digest, 5_000_000, &mut vec![], |_, _| ())
            .await
            .unwrap(),
        total
    );
    let mut part = node.open_blob(&digest, 10, Some(15)).await.unwrap();
    assert_eq!(part.total(), 5_000_000);
    assert_eq!(part.chunk().await.unwrap().unwrap(), bytes[10..15]);
    assert!(part.chunk().await.unwrap().is_none());
    assert_eq!(
        kind(lab.client(Some(9)).blob_len(&digest).await),
        Kind::Denied
    );
}

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
    let lab = with_node().await;
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
    let lab = with_node().await;
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
    let lab = with_node().await;
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
    let lab = with_node().await;
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
