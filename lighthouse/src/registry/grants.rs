//! Grants: handed over by operators, offered to token holders.

use super::{Registry, unix_now};
use crate::admission::{self, GrantRow};
use crate::refusal::Refusal;
use crate::rows;
use holdfast_core::api::{ApiErrorKind, GrantStatus, Offer, OfferRequest};
use holdfast_core::cluster::MeshIndex;
use holdfast_core::grant::Grant;
use holdfast_core::keys::PublicKey;
use holdfast_core::names::GrantId;
use holdfast_core::signed::Signed;
use std::sync::PoisonError;

impl Registry {
    /// Keeps a grant that an operator signed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn put_grant(&self, id: &GrantId, signed: Signed<Grant>) -> Result<(), Refusal> {
        let held = self.held();
        let grant = self.open_grant(&signed)?;
        if !held.operators.honours(&signed.key(), &grant.id) {
            let text = format!(
                "grant {id} is signed by {}, no operator's key",
                signed.key()
            );
            return Err(Refusal::denied(text));
        }
        let malformed = |text: String| Err(Refusal::new(ApiErrorKind::Malformed, text));
        if grant.id != *id {
            return malformed(format!("this is grant {}, not {id}", grant.id));
        }
        if grant.cluster != self.cluster().id {
            return malformed(format!("grant {id} is for cluster {}", grant.cluster));
        }
        admission::sensible(&grant)?;
        rows::update(
            self.store.as_ref(),
            &rows::grant(id),
            |old: Option<GrantRow>| match old {
                None => Ok(GrantRow {
                    grant: signed.clone(),
                    used_by: vec![],
                    offered: vec![],
                }),
                Some(old) if old.grant == signed => Ok(old),
                Some(_) => Err(Refusal::new(
                    ApiErrorKind::Taken,
                    format!("another grant is called {id}; give the new one another id"),
                )),
            },
        )
        .await?;
        tracing::info!(grant = %id, role = %grant.role, uses = grant.uses, "grant taken");
        Ok(())
    }

    /// All grants.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn grants(&self) -> Result<Vec<GrantStatus>, Refusal> {
        let held = self.held();
        let mut all = vec![];
        for (key, found) in self.store.list("grants/").await? {
            let row: GrantRow = rows::parse(&key, &found.value)?;
            let id = key.strip_prefix("grants/").unwrap_or(&key);
            let revoked = held.policy.revoked.iter().any(|r| r.id.as_str() == id);
            all.push(GrantStatus {
                grant: row.grant,
                used_by: row.used_by,
                revoked,
            });
        }
        Ok(all)
    }

    /// What the holder of `caller`'s key may become.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn offer(&self, request: &OfferRequest, caller: PublicKey) -> Result<Offer, Refusal> {
        if request.signing_key != caller {
            return Err(Refusal::denied(
                "the request names another key than the connection's",
            ));
        }
        let held = self.held();
        let key = rows::grant(&request.grant);
        let row = rows::read::<GrantRow>(self.store.as_ref(), &key).await?;
        let (row, _) = row.ok_or_else(|| unknown(&request.grant))?;
        let grant = self.open_grant(&row.grant)?;
        admission::may_use(&row, &grant, &caller, &held.policy, unix_now())?;
        let index = match self.index_of(&caller, &grant) {
            Some(index) => index,
            None => self.reserve(row.clone(), &grant, &caller)?,
        };
        Ok(Offer {
            grant: row.grant,
            index,
            documents: held.set.clone(),
            time: unix_now(),
        })
    }

    /// An index for a key that has not joined.
    fn reserve(
        &self,
        mut row: GrantRow,
        grant: &Grant,
        caller: &PublicKey,
    ) -> Result<MeshIndex, Refusal> {
        let mut offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = offers.entry(grant.id.clone()).or_default();
        row.offered = std::mem::take(offered);
        let (index, row) = admission::offer(row, grant, caller, |i| self.index_taken(i, caller))?;
        *offered = row.offered;
        Ok(index)
    }

    pub(super) fn open_grant(&self, signed: &Signed<Grant>) -> Result<Grant, Refusal> {
        let (grant, _) = signed
            .open_self()
            .map_err(|e| Refusal::new(ApiErrorKind::Malformed, e.to_string()))?;
        Ok(grant)
    }
}

pub(super) fn unknown(id: &GrantId) -> Refusal {
    Refusal::new(
        ApiErrorKind::GrantUnknown,
        format!(
            "grant {id} never reached this lighthouse: `holdfast token push` on the operator's machine hands over what waits"
        ),
    )
}
