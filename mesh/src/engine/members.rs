//! Who the peers are: the table of them, made anew with each change.

use super::{Engine, INDEX_MASK, Table, hold};
use crate::config::{ConfigError, PeerConfig, PeerUpdate};
use crate::keys::MeshKey;
use crate::outbox::Outbox;
use crate::peer::Peer;
use crate::probe::{ProbeKey, Tag};
use crate::routes::Routes;
use boringtun::noise::Tunn;
use boringtun::x25519::PublicKey;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

impl Engine {
    /// Applies the difference to `wanted`; new peers and moved ones get a handshake at once.
    pub(crate) fn set_peers(
        &self,
        wanted: &[PeerConfig],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<PeerUpdate, ConfigError> {
        let mut configured = hold(&self.configured);
        let update = PeerUpdate::plan(self.key(), &configured, wanted)?;
        if update.is_empty() {
            return Ok(update);
        }
        let mut table = Table::clone(&self.table());
        for key in &update.remove {
            configured.remove(key);
            if let Some(peer) = table.by_key.remove(key) {
                table.by_index.remove(&peer.index);
                table.by_tag.retain(|_, p| p.index != peer.index);
                hold(&self.pending).take(peer.index);
                hold(&self.relay).forget(*key);
                hold(&self.channels).remove(key);
            }
        }
        self.here.forget(&update.remove);
        for config in &update.add {
            let (peer, tag) = self.make_peer(config, &table);
            let peer = Arc::new(peer);
            peer.lock().ask(false, out, now);
            table.by_tag.insert(tag, peer.clone());
            table.by_index.insert(peer.index, peer.clone());
            table.by_key.insert(config.public_key, peer);
            configured.insert(config.public_key, config.clone());
        }
        for change in &update.change {
            configured.insert(change.config.public_key, change.config.clone());
            if let Some(peer) = table.by_key.get(&change.config.public_key) {
                let mut state = peer.lock();
                state.configure(&change.config, change.take_endpoint);
                if change.take_endpoint {
                    state.ask(true, out, now);
                }
            }
        }
        table.routes = routes(&configured, &table);
        let plain = configured.values().filter(|c| c.plain);
        table.plain = plain
            .filter_map(|c| Some(table.by_key.get(&c.public_key)?.index))
            .collect();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.find_lighthouses(now);
        Ok(update)
    }

    pub(super) fn make_peer(&self, config: &PeerConfig, table: &Table) -> (Peer, Tag) {
        let mut index = first_index() & INDEX_MASK;
        while table.by_index.contains_key(&index) {
            index = index.wrapping_add(1) & INDEX_MASK;
        }
        let tunn = Tunn::new(
            self.secret.clone(),
            PublicKey::from(config.public_key.0),
            None,
            None,
            index,
            Some(self.unlimited.clone()),
        );
        let probes = ProbeKey::new(&self.secret, self.key(), config.public_key);
        let (tag, second) = (probes.theirs, self.key() > config.public_key);
        let here = self.here.clone();
        (
            Peer::new(index, config, Box::new(tunn), second, probes, here),
            tag,
        )
    }
}

fn routes(configured: &BTreeMap<MeshKey, PeerConfig>, table: &Table) -> Routes {
    let mut routes = Routes::default();
    for config in configured.values() {
        if let Some(peer) = table.by_key.get(&config.public_key) {
            config
                .allowed_ips
                .iter()
                .for_each(|net| routes.insert(*net, peer.index));
        }
    }
    routes
}

/// Random, so that an index tells nothing; without a random source any will do.
fn first_index() -> u32 {
    getrandom::u32().unwrap_or(1)
}
