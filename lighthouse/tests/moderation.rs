//! Strangers are held off before they are listened to.

mod common;

use common::Lab;
use common::testing::key;
use holdfast_tls::{Identity, client_config, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn joins_beyond_moderation_are_answered_before_their_bodies() {
    let lab = Lab::new().await;
    let address = lab.running().https[0];
    let mut callers = JoinSet::new();
    for n in 0..100 {
        let identity = Identity::from_key(&key(n)).unwrap();
        let config = client_config(Some(&identity), lab.keys.tls.public(), &[]).unwrap();
        callers.spawn(async move {
            let tcp = TcpStream::connect(address).await.unwrap();
            let mut tls = connect(tcp, config).await.unwrap();
            // Its body never comes.
            let call = if n % 2 == 0 { "offer" } else { "join" };
            let head = format!("POST /v1/{call} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n");
            tls.write_all(head.as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let len = tls.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..len]).into_owned()
        });
    }
    // Those within moderation wait for their bodies; the first answer is for one beyond it.
    let first = callers.join_next().await.unwrap().unwrap();
    assert!(first.contains("too many joins"), "{first}");
}
