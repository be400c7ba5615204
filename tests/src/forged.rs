//! What a hostile lighthouse could put into its store.

use anyhow::{Context as _, Result, ensure};
use holdfast_core::cluster::MeshIndex;
use holdfast_core::grant::{Grant, Member, MemberRecord};
use holdfast_core::keys::{MeshKey, PrivateKey};
use holdfast_core::signed::Signed;
use holdfast_lighthouse::rows::{self, MemberRow};
use holdfast_lighthouse::store::{Cas, Embedded, Store};
use std::path::Path;
use tokio::runtime::Runtime;

/// The store of a lighthouse that does not run.
pub struct ForgedStore {
    runtime: Runtime,
    store: Embedded,
}

impl ForgedStore {
    /// Opens it as the lighthouse would.
    ///
    /// # Errors
    /// The lighthouse still runs, or there is no store.
    pub fn open(lighthouse: &Path) -> Result<Self> {
        let runtime = Runtime::new()?;
        let store = runtime.block_on(Embedded::open(&lighthouse.join("store.redb")))?;
        Ok(Self { runtime, store })
    }

    /// The member called `name`, as the store has it.
    ///
    /// # Errors
    /// There is none.
    pub fn member(&self, name: &str) -> Result<(Member, MemberRecord)> {
        let rows = self.runtime.block_on(self.store.list("members/"))?;
        for (key, found) in rows {
            let row: MemberRow = rows::parse(&key, &found.value)?;
            let (record, _) = row.member.record.open_self()?;
            if record.name.as_str() == name {
                return Ok((row.member, record));
            }
        }
        anyhow::bail!("no member {name} in the store")
    }

    /// Adds a member under a grant that no operator signed, and one under `real`'s grant (which
    /// everybody may read) whose record its token did not sign; both with `mesh_key`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn add_impostors(&self, real: &Member, mesh_key: MeshKey) -> Result<()> {
        let (mut grant, _) = real.grant.open_self()?;
        let attacker = random_key()?;
        let record = |grant: &Grant, name: &str| -> Result<MemberRecord> {
            Ok(MemberRecord {
                cluster: grant.cluster,
                grant: grant.id.clone(),
                name: name.parse()?,
                index: grant.first,
                mesh_key,
                signing_key: random_key()?.public(),
                counter: 1,
                via: None,
                own: None,
            })
        };
        let borrowed = Member {
            record: Signed::sign(&record(&grant, "borrowed")?, &attacker)?,
            grant: real.grant.clone(),
        };
        grant.id = "forged".parse()?;
        grant.token = attacker.public();
        grant.name = None;
        (grant.first, grant.last) = (MeshIndex::FIRST_NODE, MeshIndex::LAST);
        let forged = Member {
            record: Signed::sign(&record(&grant, "forged")?, &attacker)?,
            grant: Signed::sign(&grant, &attacker)?,
        };
        for member in [borrowed, forged] {
            let (record, _) = member.record.open_self()?;
            let row = MemberRow { member, joined: 1 };
            let value = serde_json::to_vec(&row)?;
            let key = rows::member(&record.signing_key);
            let done = self
                .runtime
                .block_on(self.store.cas(&key, None, Some(value)))?;
            ensure!(done == Cas::Done, "{key} was there already");
        }
        Ok(())
    }
}

fn random_key() -> Result<PrivateKey> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|e| anyhow::anyhow!("{e}"))
        .context("random bytes")?;
    Ok(PrivateKey::from_bytes(random))
}
