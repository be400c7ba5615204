//! Control streams over the standing connection, and bundles.

mod common;

use common::testing::*;
use common::{Lab, kind};
use holdfast_client::StandingEvent;
use holdfast_core::api::ApiErrorKind as Kind;
use holdfast_core::keys::Digest;
use holdfast_tls::{ClientAuth, Identity, accept, client_config, connect, peer_key, server_config};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

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
    let lab = Lab::with_node().await;
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
    let lab = Lab::with_node().await;
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
    let lab = Lab::with_node().await;
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
    let lab = Lab::with_node().await;
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
