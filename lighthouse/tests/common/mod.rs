//! A running lighthouse in a temporary directory, and those who call it.
#![allow(dead_code)]

#[path = "../../src/testing.rs"]
pub mod testing;

pub mod member;
pub mod scene;
pub mod world;

use holdfast_client::{ClientError, LighthouseClient};
use holdfast_core::api::{ApiErrorKind, OfferRequest};
use holdfast_core::documents::{DocumentSet, Policy};
use holdfast_core::grant::{Grant, MemberRecord};
use holdfast_core::keys::PublicKey;
use holdfast_core::signed::Signed;
use holdfast_lighthouse::{Config, Keys, Lighthouse, LighthouseDir, unix_now};
use holdfast_tls::Identity;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use testing::*;

/// What should take a moment may take so long on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Lab {
    pub tmp: TempDir,
    pub keys: Keys,
    pub lighthouse: Option<Lighthouse>,
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Lab {
    /// With a node `n1`, whose key is 1.
    pub async fn with_node() -> Self {
        let lab = Self::new().await;
        let g = current("g1", 50, 3);
        lab.hand_over(&g).await.unwrap();
        lab.join(1, "n1", &g, 50).await.unwrap();
        lab
    }

    pub async fn new() -> Self {
        let mut lab = Self::stopped();
        lab.start().await;
        lab
    }

    pub fn stopped() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let keys = Keys::generate().unwrap();
        let set = set(&policy(1), &keys.identity());
        let dir = tmp.path().join("lighthouse");
        LighthouseDir::create(&dir, &cluster(), &keys, &set).unwrap();
        Self {
            tmp,
            keys,
            lighthouse: None,
        }
    }

    pub fn dir(&self) -> PathBuf {
        self.tmp.path().join("lighthouse")
    }

    pub fn config(&self) -> Config {
        Config {
            dir: self.dir(),
            https: vec![loopback()],
            udp: Some(loopback()),
        }
    }

    pub async fn start(&mut self) {
        self.lighthouse = Some(Lighthouse::start(self.config()).await.unwrap());
    }

    /// Ends it at once, as a crash would; the store is free afterwards.
    pub async fn stop(&mut self) {
        self.lighthouse = None;
        let store = self.dir().join("store.redb");
        // The blocking thread of the last write may still hold the file.
        while let Err(e) = holdfast_lighthouse::store::Embedded::open(&store).await {
            assert!(
                matches!(e, holdfast_lighthouse::store::StoreError::InUse(_)),
                "{e}"
            );
            tokio::task::yield_now().await;
        }
    }

    pub fn running(&self) -> &Lighthouse {
        self.lighthouse.as_ref().unwrap()
    }

    /// A client with key `n`; none: without a key.
    pub fn client(&self, n: Option<u8>) -> LighthouseClient {
        let identity = n.map(|n| Identity::from_key(&key(n)).unwrap());
        let address = self.running().https[0].to_string();
        LighthouseClient::new(vec![address], self.keys.tls.public(), identity.as_ref()).unwrap()
    }

    pub fn operator(&self) -> LighthouseClient {
        self.client(Some(OPERATOR))
    }

    pub fn documents(&self, policy: &Policy) -> DocumentSet {
        set(policy, &self.keys.identity())
    }

    pub async fn hand_over(&self, grant: &Grant) -> Result<(), ClientError> {
        self.operator().put_grant(&grant.id, &granted(grant)).await
    }

    /// As [`Self::hand_over`], to a lighthouse that is reached at `at`.
    pub async fn hand_over_at(&self, grant: &Grant, at: SocketAddr) {
        let identity = Identity::from_key(&key(OPERATOR)).unwrap();
        let key = self.keys.tls.public();
        let client = LighthouseClient::new(vec![at.to_string()], key, Some(&identity)).unwrap();
        client.put_grant(&grant.id, &granted(grant)).await.unwrap();
    }

    /// Node `n` does what an agent does: asks, signs, joins.
    pub async fn join(
        &self,
        n: u8,
        name: &str,
        grant: &Grant,
        token: u8,
    ) -> Result<MemberRecord, ClientError> {
        let client = self.client(Some(n));
        let request = OfferRequest {
            grant: grant.id.clone(),
            signing_key: key(n).public(),
        };
        let offer = client.offer(&request).await?;
        let record = record(n, name, offer.index.get(), grant);
        let reply = client.join(member(&record, grant, token)).await?;
        let signed: Vec<_> = reply
            .members
            .members
            .iter()
            .map(|m| m.member.record.clone())
            .collect();
        assert!(signed.contains(&Signed::sign(&record, &key(token)).unwrap()));
        Ok(record)
    }

    pub fn public(n: u8) -> PublicKey {
        key(n).public()
    }
}

pub fn current(id: &str, token: u8, uses: u32) -> Grant {
    Grant {
        not_after: unix_now() + 3600,
        ..grant(id, token, uses)
    }
}

pub fn kind<T>(result: Result<T, ClientError>) -> ApiErrorKind {
    match result {
        Ok(_) => panic!("this should have been refused"),
        Err(e) => e.kind().unwrap_or_else(|| panic!("{e}")),
    }
}
