//! Over HTTPS: whoever answers at a lighthouse's address with another key, and the documents that
//! it serves to pass for its successor.

use holdfast_client::{ClientError, LighthouseClient, SuccessorError, Trust, succeed, successor};
use holdfast_core::api::OfferRequest;
use holdfast_core::cluster::{ClusterId, MeshIndex};
use holdfast_core::documents::{DocumentSet, Lighthouse, Lighthouses, Operators, Policy, Roots};
use holdfast_core::keys::{MeshKey, PrivateKey, PublicKey};
use holdfast_core::signed::Signed;
use holdfast_tls::{ClientAuth, Identity, accept, peer_key, server_config};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const CLUSTER: ClusterId = ClusterId([9; 16]);
const ROOT: u8 = 1;
const PINNED: u8 = 2;
const NEXT: u8 = 3;
const OTHER: u8 = 4;
const OWN: u8 = 5;
/// What the node holds.
const HELD: u64 = 3;

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

/// Documents in which `signer` names the lighthouse `named`.
fn documents(signer: u8, named: u8, generation: u64, cluster: ClusterId) -> DocumentSet {
    let lighthouses = Lighthouses {
        cluster,
        generation,
        lighthouses: vec![Lighthouse {
            name: "one".into(),
            https: vec![],
            udp: vec![],
            key: key(named).public(),
            mesh_key: MeshKey([named; 32]),
            index: MeshIndex::LIGHTHOUSE,
        }],
    };
    let operators = Operators {
        cluster,
        generation: 1,
        operators: vec![],
        former: vec![],
    };
    let policy = Policy {
        cluster,
        generation: 1,
        rules: vec![],
        evicted: vec![],
        revoked: vec![],
    };
    DocumentSet {
        operators: Signed::sign(&operators, &key(signer)).unwrap(),
        lighthouses: Signed::sign(&lighthouses, &key(signer)).unwrap(),
        policy: Signed::sign(&policy, &key(signer)).unwrap(),
        releases: String::new(),
    }
}

/// Paths, and the keys that asked for them.
type Asked = Arc<Mutex<Vec<(String, Option<PublicKey>)>>>;
/// What is served, and how it must be refused.
type Case = (&'static str, DocumentSet, fn(&SuccessorError) -> bool);

/// Answers every request with `set` until dropped, showing the key `NEXT`; notes who asked what.
struct Server {
    address: String,
    asked: Asked,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(set: &DocumentSet) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let body = serde_json::to_string(set).unwrap();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let seen = asked.clone();
        let identity = Identity::from_key(&key(NEXT)).unwrap();
        let config = server_config(&identity, &[b"http/1.1"], ClientAuth::Optional).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Most hang up when they see the key.
                let Ok(stream) = accept(socket, config.clone()).await else {
                    continue;
                };
                let who = peer_key(stream.get_ref().1);
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n")
                    && stream.read_line(&mut head).await.is_ok_and(|n| n > 0)
                {}
                let first = head.lines().next().unwrap_or_default().to_owned();
                seen.lock().unwrap().push((first, who));
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    /// A node calls with the pin it has.
    async fn refusal(&self) -> ClientError {
        let own = Identity::from_key(&key(OWN)).unwrap();
        let at = vec![self.address.clone()];
        let client = LighthouseClient::new(at, key(PINNED).public(), Some(&own)).unwrap();
        let request = OfferRequest {
            grant: "g1".parse().unwrap(),
            signing_key: own.public(),
        };
        let error = client.offer(&request).await.unwrap_err();
        assert!(matches!(error, ClientError::WrongKey { .. }), "{error}");
        error
    }
}

fn trust() -> Trust {
    Trust {
        roots: Roots(vec![key(ROOT).public()]),
        cluster: CLUSTER,
        generation: HELD,
    }
}

#[tokio::test]
async fn served_documents_are_taken_from_a_true_successor_only() {
    let own = Identity::from_key(&key(OWN)).unwrap();
    let abroad = ClusterId([8; 16]);
    let cases: [Case; 6] = [
        (
            "signed by no root",
            documents(OTHER, NEXT, HELD + 1, CLUSTER),
            |e| matches!(e, SuccessorError::Document { .. }),
        ),
        (
            "signed by itself",
            documents(NEXT, NEXT, HELD + 1, CLUSTER),
            |e| matches!(e, SuccessorError::Document { .. }),
        ),
        (
            "of another cluster",
            documents(ROOT, NEXT, HELD + 1, abroad),
            |e| matches!(e, SuccessorError::Document { .. }),
        ),
        (
            "the generation held",
            documents(ROOT, NEXT, HELD, CLUSTER),
            |e| matches!(e, SuccessorError::NotNewer { .. }),
        ),
        (
            "an old generation",
            documents(ROOT, NEXT, HELD - 1, CLUSTER),
            |e| matches!(e, SuccessorError::NotNewer { .. }),
        ),
        (
            "another lighthouse's",
            documents(ROOT, OTHER, HELD + 1, CLUSTER),
            |e| matches!(e, SuccessorError::NotNamed { .. }),
        ),
    ];
    for (what, set, expected) in cases {
        let server = Server::start(&set).await;
        let error = server.refusal().await;
        let refused = succeed(&error, &trust(), &own).await.unwrap_err();
        assert!(expected(&refused), "{what}: {refused}");
        let refused = successor(&error, &trust()).await.unwrap_err();
        assert!(expected(&refused), "{what}: {refused}");
        // It was asked for documents and told nothing: not even who asks.
        let asked = server.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 2, "{what}: {asked:?}");
        for (request, who) in asked {
            assert_eq!(request, "GET /v1/documents HTTP/1.1", "{what}");
            assert_ne!(who, Some(own.public()), "{what}");
        }
    }
    let set = documents(ROOT, NEXT, HELD + 1, CLUSTER);
    let server = Server::start(&set).await;
    let error = server.refusal().await;
    assert_eq!(successor(&error, &trust()).await.unwrap(), Some(set));
    let next = succeed(&error, &trust(), &own).await.unwrap().unwrap();
    assert_eq!(next.key(), key(NEXT).public());
}

/// One letter of what a root signed is another.
#[tokio::test]
async fn an_altered_document_is_refused() {
    let own = Identity::from_key(&key(OWN)).unwrap();
    let mut set = documents(ROOT, NEXT, HELD + 1, CLUSTER);
    let text = serde_json::to_string(&set.lighthouses).unwrap();
    let at = text.find("\"payload\":\"").unwrap() + 60;
    let mut bytes = text.into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    set.lighthouses = serde_json::from_slice(&bytes).unwrap();
    let server = Server::start(&set).await;
    let error = server.refusal().await;
    let refused = succeed(&error, &trust(), &own).await.unwrap_err();
    assert!(
        matches!(refused, SuccessorError::Document { .. }),
        "{refused}"
    );
}
