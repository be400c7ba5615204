//! The way from a seed to a member. Each step is stored before the next begins, and each may be
//! repeated, so that a power cut at any of them does no harm:
//!
//! ```text
//! keys stored -> offer checked -> record sent -> admission stored -> hf-seed made anew
//!      ^                               |
//!      '---- power cut: again, with the same keys: the lighthouse knows them
//! ```

mod again;
mod copied;
mod reach;
mod record;
mod scrub;
mod trouble;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::console::say;
use crate::forever::forever;
use crate::lighthouse::listed;
use crate::node::{Node, event, remember};
use crate::seed::choose::{Finding, Good, Source};
use crate::seed::report::Report;
use crate::{disk, identity, install, machine, network};
use holdfast_core::api::OfferRequest;
use holdfast_core::seed::{Seed, SeedLighthouse};
use holdfast_core::state::{Admission, Identity, StateDoc};
use record::Ready;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use trouble::Trouble;

/// How long the first attempt waits for an address.
const NETWORK_PATIENCE: Duration = Duration::from_secs(20);
/// With an IPv6 address, how long it waits for DHCP to give another: routers mostly are faster, and
/// the name servers may be DHCP's.
const DHCP_PATIENCE: Duration = Duration::from_secs(3);
/// A seed's place may appear late (drivers of CD drives load beside the start): so long it is not
/// said that there is none.
const QUIET: Duration = Duration::from_secs(15);

/// Returns once the node has joined; its seed is gone then, or is tried to be made so again and
/// again.
pub async fn settle(node: &Arc<Node>, mut uplinks: watch::Receiver<network::Uplinks>) {
    let mut pauses = Backoff::secs(1, 60);
    let mut drives = BTreeSet::new();
    let began = Instant::now();
    let mut compared = false;
    install::finish_what_was_done(node).await;
    copied::settle(node, &mut uplinks).await;
    loop {
        let joined = node.store.get().admission.is_some();
        if joined {
            // A seed that cannot be followed must not keep a joined node from its mesh.
            if let Some(good) = again::look(node).await
                && !follow(node, &mut uplinks, good).await
            {
                return;
            }
            // No more must a volume that takes no writes, or hangs over them.
            if !scrub::once(node).await {
                forever("scrub", scrub::later(node.clone()));
            }
            return;
        } else if try_once(node, &mut uplinks, began.elapsed() > QUIET, &mut compared).await {
            pauses.reset();
            continue;
        }
        // A network that came up is worth an attempt at once, and so is a drive.
        tokio::select! {
            () = tokio::time::sleep(pauses.pause()) => {}
            Ok(()) = uplinks.changed() => {}
            () = node.places.drives.changed(&mut drives) => {}
        }
    }
}

fn wants_rejoin(seed: &Seed, doc: &StateDoc) -> bool {
    seed.rejoin && !doc.spent_grants.iter().any(|g| g == seed.grant.as_str())
}

/// One look and, with a seed, one attempt; true when the node has joined. `loud`: it is said when
/// there is none; `compared`: with what a drive may hold.
async fn try_once(
    node: &Arc<Node>,
    uplinks: &mut watch::Receiver<network::Uplinks>,
    loud: bool,
    compared: &mut bool,
) -> bool {
    match node.places.look().await {
        Finding::Nothing { unreadable } => {
            if loud {
                let places = if unreadable.is_empty() {
                    "not on the volume HOLDFAST (hf-seed), not in fw_cfg opt/holdfast/seed, not in SMBIOS' serial number, not on a drive labelled cidata"
                        .into()
                } else {
                    unreadable.join("; ")
                };
                tell(
                    node,
                    "no-seed",
                    None,
                    format!("no seed: {places}"),
                    "Put the file of holdfast seed new on the volume HOLDFAST as seed.toml; the node goes on looking",
                )
                .await;
            }
            false
        }
        Finding::Bad(bad) => {
            tell(node, "bad-seed", Some(bad.source), bad.why, &bad.advice).await;
            false
        }
        Finding::Good(good) => {
            if !std::mem::replace(compared, true) {
                again::compare_with_drive(node, &good);
            }
            follow(node, uplinks, good).await
        }
    }
}

/// One attempt with a seed; true when the node has joined.
async fn follow(node: &Node, uplinks: &mut watch::Receiver<network::Uplinks>, good: Good) -> bool {
    let source = good.source;
    match good.differs.is_empty() {
        false => again::told_to_differ(node, "seed", source, &good.differs),
        true => node.notes.clear("seed"),
    }
    match &good.notes {
        Some(text) => {
            if node.notes.set("network-config", text.clone()) {
                say(text);
            }
        }
        None => node.notes.clear("network-config"),
    }
    let mut seed = good.seed;
    if let Some(interface) = &good.interface {
        seed.network.interface = network::interface_of(interface);
    }
    node.clock.lift(seed.issued);
    if let Some(rules) = &seed.install {
        install::attempt(node, &seed, rules).await;
        return false;
    }
    node.wanted.send_if_modified(|w| {
        let before = w.clone();
        w.seed = seed.network.clone();
        w.wifi = seed.wifi.clone();
        w.host_name = seed.name.as_ref().map(ToString::to_string);
        *w != before
    });
    let _ = tokio::time::timeout(NETWORK_PATIENCE, some_address(uplinks)).await;
    match attempt(node, &seed).await {
        Ok(()) => true,
        Err(t) => {
            tracing::info!(mends = t.may_mend_itself(), "join: {}", t.message);
            tell(node, t.state, Some(source), t.message, t.advice).await;
            false
        }
    }
}

/// Returns once this machine is on a network.
async fn some_address(uplinks: &mut watch::Receiver<network::Uplinks>) {
    let has = |u: &network::Uplinks, v4: bool| {
        let mut all = u.values().flat_map(|u| &u.addresses);
        all.any(|a| !v4 || a.addr().is_ipv4())
    };
    let _ = uplinks.wait_for(|u| has(u, false)).await;
    let both = uplinks.wait_for(|u| has(u, true));
    let _ = tokio::time::timeout(DHCP_PATIENCE, both).await;
}

/// On the console and, as far as the volume allows, on `hf-seed`.
async fn tell(
    node: &Node,
    state: &'static str,
    source: Option<Source>,
    message: String,
    advice: &str,
) {
    let report = Report {
        state,
        source: source.map(|s| s.to_string()),
        message,
        advice: format!("{advice}."),
        version: node.image.version.clone(),
        at: Clock::now(),
    };
    node.reporter.tell(report).await;
}

/// One attempt on a machine that has its network from others.
///
/// # Errors
/// What stands in the way, and what to do about it.
pub async fn on_request(node: &Node, seed: &Seed) -> anyhow::Result<()> {
    attempt(node, seed)
        .await
        .map_err(|t| anyhow::anyhow!(t.said_once()))
}

/// Tries every lighthouse of the seed; the most telling trouble of all counts.
async fn attempt(node: &Node, seed: &Seed) -> Result<(), Trouble> {
    let (identity, made) = identity::ensure(&node.store, machine::id())
        .await
        .map_err(|e| Trouble::local(&e))?;
    if made {
        say("join: identity stored");
    }
    let mut worst: Option<Trouble> = None;
    for lighthouse in &seed.lighthouses {
        match join_at(node, seed, &identity, lighthouse).await {
            Ok(()) => return Ok(()),
            Err(t) => {
                if worst.as_ref().is_none_or(|w| t.weight > w.weight) {
                    worst = Some(t);
                }
            }
        }
    }
    Err(worst.unwrap_or_else(|| Trouble::local(&anyhow::anyhow!("the seed names no lighthouse"))))
}

async fn join_at(
    node: &Node,
    seed: &Seed,
    identity: &Identity,
    lighthouse: &SeedLighthouse,
) -> Result<(), Trouble> {
    let local = |e: anyhow::Error| Trouble::local(&e);
    let tls = holdfast_tls::Identity::from_key(&identity.signing).map_err(|e| local(e.into()))?;
    let request = OfferRequest {
        grant: seed.grant.clone(),
        signing_key: identity.signing.public(),
    };
    let doc = node.store.get();
    let (client, offer) = reach::offer(seed, &doc, &tls, lighthouse, &request).await?;
    node.clock.vouch(offer.time).await.map_err(local)?;
    let same = doc
        .admission
        .as_ref()
        .is_some_and(|a| a.cluster_id == seed.cluster_id);
    let held = doc.documents.as_ref().filter(|_| same);
    // A clock that was in the future when this node joined before must not keep it out now.
    let last = doc
        .admission
        .as_ref()
        .and_then(|a| node.known.open(&a.member).ok());
    let last = last.map_or(0, |o| o.record.counter);
    let counter = Clock::now().max(last.saturating_add(1));
    let floors = if same { doc.document_floors } else { [0; 3] };
    let ready = record::prepare(seed, identity, (held, floors), &offer, counter)?;
    say("join: offer accepted");
    let reply = client
        .join(ready.member.clone())
        .await
        .map_err(|e| Trouble::client(&e))?;
    say("join: record sent");
    node.clock.vouch(reply.time).await.map_err(local)?;
    let admission = admission(seed, &ready);
    let name = admission.name.clone();
    let trusted = ready.documents.trusted;
    let generations = trusted.generations();
    let list = reply.members;
    let (own, seen) = (admission.clone(), node.known.clone());
    let known = disk::blocking(move || {
        let held: &[_] = if same { &doc.members } else { &[] };
        let mut kept = listed::worth_keeping(&list, held, &own, &trusted, &seen);
        if list.members.is_empty() {
            // They are many, and asked for next.
            kept.members = held.to_vec();
        }
        Ok(kept)
    })
    .await
    .map_err(local)?;
    node.store
        .update(|d| {
            d.documents = Some(ready.documents.set);
            d.document_floors = generations;
            d.members = known.members;
            d.admission = Some(admission);
            d.spent_grants.push(seed.grant.to_string());
            remember(
                &mut d.history,
                event("join", format!("joined {} as {name}", seed.cluster)),
            );
        })
        .await
        .map_err(local)?;
    say("join: admission stored");
    Ok(())
}

fn admission(seed: &Seed, ready: &Ready) -> Admission {
    Admission {
        cluster: seed.cluster.clone(),
        cluster_id: seed.cluster_id,
        dual_stack: seed.dual_stack,
        roots: seed.roots.clone(),
        name: ready.record.name.clone(),
        role: ready.grant.role,
        index: ready.record.index,
        member: ready.member.clone(),
        lighthouses: seed.lighthouses.iter().map(Into::into).collect(),
        network: (&seed.network).into(),
        wifi: seed.wifi.as_ref().map(Into::into),
        k3s: (&seed.k3s).into(),
        seed_scrubbed: false,
        other: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_node_joins_anew_only_with_an_unused_grant_that_says_so() {
        let mut seed = crate::seed::fuzz::seed();
        let mut doc = StateDoc {
            spent_grants: vec!["g0".into()],
            ..StateDoc::default()
        };
        assert!(!wants_rejoin(&seed, &doc));
        seed.rejoin = true;
        assert!(wants_rejoin(&seed, &doc));
        doc.spent_grants.push("g1".into());
        assert!(!wants_rejoin(&seed, &doc));
    }
}
