//! Power fails at every step of a join; the node comes again.

mod common;

use common::current;
use common::testing::*;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use holdfast_core::api::{ApiErrorKind, OfferRequest};
use holdfast_core::grant::Grant;
use holdfast_lighthouse::store::{Cas, Embedded, Store, StoreError, Versioned};
use holdfast_lighthouse::{Refusal, Registry};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A store whose machine loses power at the n-th write: before it, or after it without an answer.
#[derive(Debug)]
struct Failing {
    store: Embedded,
    writes_left: AtomicI64,
    last_one_lands: bool,
}

impl Store for Failing {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        self.store.get(key)
    }

    fn cas<'a>(
        &'a self,
        key: &'a str,
        expected: Option<u64>,
        new: Option<Vec<u8>>,
    ) -> BoxFuture<'a, Result<Cas, StoreError>> {
        let left = self.writes_left.fetch_sub(1, Ordering::Relaxed);
        async move {
            let dead = || StoreError::Io {
                path: "store".into(),
                reason: "power".into(),
            };
            match left {
                2.. => self.store.cas(key, expected, new).await,
                1 if self.last_one_lands => {
                    self.store.cas(key, expected, new).await?;
                    Err(dead())
                }
                _ => Err(dead()),
            }
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        self.store.list(prefix)
    }
}

async fn open(store: Arc<dyn Store>) -> Registry {
    let set = set(&policy(1), &identity());
    Registry::open(store, cluster(), Some(set)).await.unwrap()
}

async fn join(registry: &Registry, n: u8, name: &str, grant: &Grant) -> Result<u16, Refusal> {
    let key = key(n).public();
    let request = OfferRequest {
        grant: grant.id.clone(),
        signing_key: key,
    };
    let offer = registry.offer(&request, key).await?;
    let record = record(n, name, offer.index.get(), grant);
    registry.join(&member(&record, grant, 50), key).await?;
    Ok(record.index.get())
}

/// True when the power held for the whole join.
async fn one_cut(path: &Path, writes: i64, last_one_lands: bool) -> bool {
    let grant = current("g1", 50, 1);
    let store = Embedded::open(path).await.unwrap();
    let registry = open(Arc::new(store.clone())).await;
    registry
        .put_grant(&grant.id, granted(&grant))
        .await
        .unwrap();
    drop(registry);
    let failing = Failing {
        store: store.clone(),
        // The first write of a start is its number.
        writes_left: AtomicI64::new(writes + 2),
        last_one_lands,
    };
    let whole = join(&open(Arc::new(failing)).await, 1, "n1", &grant)
        .await
        .is_ok();

    // The lighthouse starts again, the node comes again with the same key.
    let registry = open(Arc::new(store)).await;
    assert_eq!(join(&registry, 1, "n1", &grant).await.unwrap(), 16);
    let grants = registry.grants().await.unwrap();
    assert_eq!(grants[0].used_by, [key(1).public()]);
    let list = registry.members_of(&key(1).public(), 100);
    assert_eq!(list.members.len(), 1);
    // The token is spent: another key gets nothing.
    let other = join(&registry, 2, "n2", &grant).await.unwrap_err();
    assert_eq!(other.error.kind, ApiErrorKind::GrantUsedUp);
    whole
}

#[tokio::test]
async fn a_join_cut_off_at_any_write_is_repeated_and_counts_once() {
    for last_one_lands in [false, true] {
        let mut writes = 0;
        loop {
            let tmp = tempfile::tempdir().unwrap();
            if one_cut(&tmp.path().join("store"), writes, last_one_lands).await {
                break;
            }
            writes += 1;
        }
        // Offer, name, index, use, member: at the least.
        assert!(writes >= 4, "only {writes} writes were cut");
    }
}
