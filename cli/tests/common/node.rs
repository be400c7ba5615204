//! A node without a machine: joins, waits at the lighthouse, answers control requests by the book.

use holdfast_client::{LighthouseClient, StandingEvent};
use holdfast_core::api::OfferRequest;
use holdfast_core::control::{ALPN, LogLine, MeshPing, Reply, Request};
use holdfast_core::grant::{Member, MemberRecord};
use holdfast_core::keys::{MeshKey, PrivateKey};
use holdfast_core::seed::Seed;
use holdfast_core::signed::Signed;
use holdfast_core::status::{BootStatus, HistoryEntry, K3sState, NodeStatus, SlotName, SlotStatus};
use holdfast_tls::{ClientAuth, Identity, server_config};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What a trial of this node's other slot comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    Commits,
    GoesBack,
}

struct Inner {
    status: NodeStatus,
    trial: Trial,
    upgraded: Vec<String>,
}

/// The node; its tasks end with the test's runtime.
#[derive(Clone)]
pub struct Node(Arc<Mutex<Inner>>);

type Server = holdfast_tls::ServerStream<holdfast_client::Stream>;

async fn write(stream: &mut Server, reply: &Reply) {
    let bytes = serde_json::to_vec(reply).unwrap();
    stream
        .write_all(&(bytes.len() as u32).to_be_bytes())
        .await
        .unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream.flush().await.unwrap();
}

impl Node {
    /// Joins with `seed` through `api`, and answers from then on.
    pub async fn join(seed: &Seed, api: String) -> Self {
        let key = PrivateKey::from_bytes([42; 32]);
        let identity = Identity::from_key(&key).unwrap();
        let client =
            LighthouseClient::new(vec![api], seed.lighthouses[0].key, Some(&identity)).unwrap();
        let asked = OfferRequest {
            grant: seed.grant.clone(),
            signing_key: key.public(),
        };
        let offer = client.offer(&asked).await.unwrap();
        let name = seed.name.clone().unwrap();
        let record = MemberRecord {
            cluster: seed.cluster_id,
            grant: seed.grant.clone(),
            name: name.clone(),
            index: offer.index,
            mesh_key: MeshKey([7; 32]),
            signing_key: key.public(),
            counter: 1,
            via: None,
            own: None,
        };
        let member = Member {
            record: Signed::sign(&record, &seed.token).unwrap(),
            grant: offer.grant,
        };
        client.join(member).await.unwrap();

        let status = NodeStatus {
            cluster: seed.cluster_id,
            name,
            role: seed.role,
            index: offer.index,
            counter: 1,
            uptime: 60,
            boot: BootStatus {
                boot_id: "0000".into(),
                slot: SlotName::A,
                version: "1.0.0".into(),
                generation: 1,
                on_trial: false,
                reason: "first start".into(),
                slots: vec![SlotStatus {
                    slot: SlotName::B,
                    state: "empty".into(),
                    generation: 0,
                    tries_left: 0,
                    reason: String::new(),
                    probation: false,
                }],
            },
            k3s: K3sState::Ready,
            k3s_info: None,
            handshake_age: Some(1),
            memory: None,
            documents: None,
            notes: vec![],
        };
        client
            .put_status(&Signed::sign(&status, &key).unwrap())
            .await
            .unwrap();
        let trial = Trial::Commits;
        let node = Self(Arc::new(Mutex::new(Inner {
            status,
            trial,
            upgraded: vec![],
        })));

        let operators = offer
            .documents
            .operators
            .open(|k| seed.roots.contains(k))
            .unwrap();
        let keys = operators.operators.iter().map(|o| o.key).collect();
        let tls = server_config(&identity, &[ALPN], ClientAuth::Only(keys)).unwrap();
        let mut standing = client.standing().await.unwrap();
        let answering = node.clone();
        tokio::spawn(async move {
            while let Ok(StandingEvent::Open(id)) = standing.next().await {
                let stream = client.splice(&id).await.unwrap();
                let (tls, node) = (tls.clone(), answering.clone());
                tokio::spawn(async move {
                    // Who is refused by TLS hears it there.
                    if let Ok(stream) = holdfast_tls::accept(stream, tls).await {
                        node.answer(stream).await;
                    }
                });
            }
        });
        node
    }

    pub fn next_trial(&self, trial: Trial) {
        self.0.lock().unwrap().trial = trial;
    }

    /// The digests it was asked to upgrade to.
    pub fn upgraded(&self) -> Vec<String> {
        self.0.lock().unwrap().upgraded.clone()
    }

    fn start_anew(&self, trial: bool) {
        let mut inner = self.0.lock().unwrap();
        let goes_back = inner.trial == Trial::GoesBack;
        let boot = &mut inner.status.boot;
        boot.boot_id.push('1');
        boot.reason = "reboot asked for".into();
        if trial && goes_back {
            boot.reason = "slot b went back: no mesh handshake by the deadline".into();
        } else if trial {
            boot.slot = if boot.slot == SlotName::A {
                SlotName::B
            } else {
                SlotName::A
            };
            boot.version = "1.1.0".into();
        }
    }

    async fn answer(&self, mut stream: Server) {
        let len = stream.read_u32().await.unwrap();
        let mut bytes = vec![0; len as usize];
        stream.read_exact(&mut bytes).await.unwrap();
        let request: Request = serde_json::from_slice(&bytes).unwrap();
        let mut trial = None;
        match request {
            Request::Mesh => write(&mut stream, &Reply::Mesh(vec![])).await,
            Request::MeshPing { count, .. } => {
                for _ in 0..count {
                    let answer = MeshPing {
                        rtt: Some(1500),
                        path: None,
                    };
                    write(&mut stream, &Reply::Ping(answer)).await;
                }
            }
            Request::Status => {
                let status = self.0.lock().unwrap().status.clone();
                write(&mut stream, &Reply::Status(Box::new(status))).await;
            }
            Request::Logs { lines, unit, .. } => {
                for n in 0..lines {
                    let unit = unit.clone().unwrap_or_else(|| "agent".into());
                    let line = LogLine {
                        at: 1_000_000,
                        unit,
                        priority: 6,
                        message: format!("line {n}"),
                    };
                    write(&mut stream, &Reply::Line(line)).await;
                }
            }
            Request::History => {
                let entry = HistoryEntry {
                    at: 1,
                    event: "join".into(),
                    operator: None,
                    slot: None,
                    version: None,
                    detail: "joined".into(),
                };
                write(&mut stream, &Reply::History(vec![entry])).await;
            }
            Request::Upgrade { digest, len, .. } => {
                self.0.lock().unwrap().upgraded.push(digest.to_string());
                for done in [0, len] {
                    let step = "fetch".into();
                    write(
                        &mut stream,
                        &Reply::Progress {
                            step,
                            done,
                            total: len,
                        },
                    )
                    .await;
                }
                trial = Some(true);
            }
            Request::Rollback => trial = Some(true),
            Request::Reboot { .. } => trial = Some(false),
            Request::Kubeconfig => {
                let config = "clusters:\n- cluster:\n    server: https://127.0.0.1:6443\n";
                write(&mut stream, &Reply::Text(config.into())).await;
            }
            Request::KubeTunnel => {
                write(&mut stream, &Reply::Tunnel).await;
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                return;
            }
            Request::RestartAgent => {
                let message = "the agent is busy with an upgrade".into();
                write(
                    &mut stream,
                    &Reply::Failed {
                        kind: "busy".into(),
                        message,
                    },
                )
                .await;
                return;
            }
        }
        if let Some(trial) = trial {
            self.start_anew(trial);
        }
        write(&mut stream, &Reply::Done).await;
        let _ = stream.shutdown().await;
    }
}
