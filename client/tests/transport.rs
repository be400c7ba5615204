//! Against a bare TLS listener: addresses in order, the pin, upgrades, answers of strangers.

use holdfast_client::{ClientError, LighthouseClient, StandingEvent};
use holdfast_core::keys::{PrivateKey, PublicKey};
use holdfast_tls::{ClientAuth, Identity, accept, peer_key, server_config};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

/// Takes one connection, answers `answer` to its first request, then echoes lines. Gives the
/// request's head and the client's key.
async fn server(answer: &'static str) -> (String, oneshot::Receiver<(String, Option<PublicKey>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let identity = Identity::from_key(&key(1)).unwrap();
        let config = server_config(&identity, &[b"http/1.1"], ClientAuth::Optional).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let Ok(stream) = accept(socket, config).await else {
            return;
        };
        let who = peer_key(stream.get_ref().1);
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let _ = tell.send((head, who));
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
            stream.write_all(line.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            line.clear();
        }
    });
    (address, told)
}

fn client(addresses: &[&str], pin: u8) -> LighthouseClient {
    let identity = Identity::from_key(&key(7)).unwrap();
    let addresses = addresses.iter().map(ToString::to_string).collect();
    LighthouseClient::new(addresses, key(pin).public(), Some(&identity)).unwrap()
}

/// A port on which nobody listens.
const DEAD: &str = "127.0.0.1:1";

#[tokio::test]
async fn the_second_address_serves_when_the_first_is_dead() {
    let (address, told) =
        server("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"ok\":true}").await;
    client(&[DEAD, &address], 1).health().await.unwrap();
    let (head, who) = told.await.unwrap();
    assert!(head.starts_with("GET /v1/health HTTP/1.1\r\n"), "{head}");
    assert_eq!(who, Some(key(7).public()));
    match client(&[DEAD], 1).health().await.unwrap_err() {
        ClientError::Unreachable(attempts) => assert_eq!(attempts[0].address, DEAD),
        other => panic!("{other}"),
    }
}

/// Takes connections and ends each after TLS, without an answer.
async fn mute() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let identity = Identity::from_key(&key(1)).unwrap();
        let config = server_config(&identity, &[b"http/1.1"], ClientAuth::Optional).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            drop(accept(socket, config.clone()).await);
        }
    });
    address
}

#[tokio::test]
async fn an_address_that_takes_connections_and_answers_nothing_loses_its_turn() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";
    let mute = mute().await;
    let broke = |error: &ClientError| {
        let at = matches!(error, ClientError::Broken { address, .. } if *address == mute);
        assert!(at, "{error}");
    };
    // Behind a dead one too.
    let (good, _) = server(OK).await;
    let one = client(&[DEAD, &mute, &good], 1);
    broke(&one.health().await.unwrap_err());
    one.health().await.unwrap();
    let (good, _) = server(UPGRADED).await;
    let one = client(&[&mute, &good], 1);
    let name = "n1".parse().unwrap();
    broke(&one.control(&name).await.map(drop).unwrap_err());
    one.control(&name).await.map(drop).unwrap();
}

#[tokio::test]
async fn a_wrong_key_is_told_apart_from_a_dead_address() {
    let (address, _) = server("").await;
    let error = client(&[DEAD, &address], 9).health().await.unwrap_err();
    assert!(matches!(&error, ClientError::WrongKey { .. }), "{error}");
    assert!(!error.may_mend_itself());
    assert!(
        error.to_string().contains(&key(1).public().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn refusals_and_strangers_are_told_apart() {
    let (address, _) = server(
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 34\r\n\r\n{\"kind\":\"denied\",\"message\":\"no.\"} \n",
    )
    .await;
    let error = client(&[&address], 1).health().await.unwrap_err();
    assert_eq!(error.to_string(), "the lighthouse said: no.");
    let (address, _) = server("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nproxy").await;
    let error = client(&[&address], 1).health().await.unwrap_err();
    assert!(matches!(&error, ClientError::Unexpected { status: 502, body, .. } if body == "proxy"));
}

#[tokio::test]
async fn a_long_explanation_is_cut() {
    let body = format!(
        "{{\"kind\":\"denied\",\"message\":\"{}\"}}",
        "x".repeat(100_000)
    );
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (address, _) = server(answer.leak()).await;
    match client(&[&address], 1).health().await.unwrap_err() {
        ClientError::Api(error) => assert_eq!(error.message, "x".repeat(500)),
        other => panic!("{other}"),
    }
}

const UPGRADED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: holdfast-splice/1\r\n\r\n";

#[tokio::test]
async fn an_upgrade_carries_raw_bytes_both_ways() {
    let (address, told) = server(UPGRADED).await;
    let client = client(&[&address], 1);
    let open = async { client.control(&"n1".parse().unwrap()).await };
    // The stream must be usable from any thread.
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let mut stream = sendable(open).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello\n");
    let (head, _) = told.await.unwrap();
    assert!(head.contains("upgrade: holdfast-splice/1\r\n"), "{head}");
}

#[tokio::test]
async fn a_standing_connection_answers_pings_and_announces() {
    let (address, _) = server(concat!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n",
        "upgrade: holdfast-standing/1\r\n\r\nping\nopen abc123\nopen ../x\n"
    ))
    .await;
    let mut standing = client(&[&address], 1).standing().await.unwrap();
    assert_eq!(
        standing.next().await.unwrap(),
        StandingEvent::Open("abc123".into())
    );
    assert!(
        standing
            .next()
            .await
            .unwrap_err()
            .to_string()
            .contains("../x")
    );
}
