//! Putting it together.

use crate::blobs::Blobs;
use crate::dir::LighthouseDir;
use crate::error::LighthouseError;
use crate::http::{App, router};
use crate::limits::Connections;
use crate::mesh::MeshLink;
use crate::rate::Rates;
use crate::registry::Registry;
use crate::server::{listen, serve};
use crate::splice::Switchboard;
use crate::store::{Embedded, Store};
use holdfast_core::documents::Lighthouse as Entry;
use holdfast_tls::{ClientAuth, Identity, server_config};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What most systems let a process open at least.
const USUAL_FILES: u64 = 1024;

/// What a lighthouse needs to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its directory ([`LighthouseDir`]).
    pub dir: PathBuf,
    /// Addresses of the HTTPS API; none: every address, on the ports that the *lighthouses*
    /// document names.
    pub https: Vec<SocketAddr>,
    /// Address of the mesh socket (UDP); none: every address, on the port that the document names.
    pub udp: Option<SocketAddr>,
}

impl Config {
    /// Everything as the documents say.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            https: vec![],
            udp: None,
        }
    }
}

/// A running lighthouse; dropping it ends it.
#[derive(Debug)]
pub struct Lighthouse {
    /// Where its API listens.
    pub https: Vec<SocketAddr>,
    /// Its mesh socket's port.
    pub udp: u16,
    app: Arc<App>,
    tasks: JoinSet<LighthouseError>,
    _running: watch::Sender<()>,
}

impl Lighthouse {
    /// Runs until `shutdown` resolves.
    ///
    /// # Errors
    /// [`LighthouseError`].
    pub async fn run(
        config: Config,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), LighthouseError> {
        Self::start(config).await?.until(shutdown).await
    }

    /// Runs on until `shutdown` resolves.
    ///
    /// # Errors
    /// [`LighthouseError`].
    pub async fn until(
        mut self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), LighthouseError> {
        tokio::select! {
            error = self.failed() => Err(error),
            () = shutdown => {
                tracing::info!("lighthouse stops");
                Ok(())
            }
        }
    }

    /// Bounds what is relayed between two members to so many bytes a second, both directions
    /// together. Without this it is not bounded.
    pub fn limit_relay(&self, bytes_per_second: u64) {
        self.app.mesh.limit_relay(bytes_per_second);
    }

    /// Starts; everything listens when this returns.
    ///
    /// # Errors
    /// [`LighthouseError`].
    pub async fn start(config: Config) -> Result<Self, LighthouseError> {
        let files = raise_open_files();
        let dir = LighthouseDir::open(&config.dir)?;
        let (cluster, keys) = (dir.cluster()?, dir.keys()?);
        let identity = Identity::from_key(&keys.tls)?;
        let tls = server_config(&identity, &[b"http/1.1"], ClientAuth::Optional)?;
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&dir.store()).await?);
        let blobs = Blobs::open(&dir.blobs())?;
        let addresses = cluster.plan();
        let registry = Arc::new(Registry::open(store, cluster, dir.documents()?).await?);
        registry.refill(dir.refill_until()?);
        let own = own_entry(&registry, &keys.identity().key)?;
        if own.mesh_key != keys.identity().mesh_key {
            return Err(unfit(
                "the lighthouses document names another WireGuard key for this one",
            ));
        }
        let https = if config.https.is_empty() {
            ports(&own.https)
        } else {
            config.https
        };
        let udp = config.udp.or_else(|| ports(&own.udp).into_iter().next());
        let udp = udp.ok_or_else(|| unfit("the lighthouses document names no UDP port"))?;
        if https.is_empty() {
            return Err(unfit("the lighthouses document names no HTTPS port"));
        }
        let listeners = https
            .into_iter()
            .map(listen)
            .collect::<Result<Vec<_>, _>>()?;
        let mesh = MeshLink::start(&keys, addresses, own.index, udp)?;
        let (ends, running) = watch::channel(());
        let app = Arc::new(App {
            registry: registry.clone(),
            blobs,
            board: Switchboard::default(),
            rates: Rates::default(),
            mesh: mesh.clone(),
            running,
        });
        let (connections, udp) = (Connections::within(files), mesh.port());
        let mut tasks = JoinSet::new();
        tasks.spawn(mesh.keep(registry.clone(), own.key));
        tasks.spawn(async move {
            registry.publish().await;
            LighthouseError::Mesh("nobody publishes changes any more".into())
        });
        let mut https = vec![];
        for listener in listeners {
            https.extend(listener.local_addr());
            let serving = serve(
                listener,
                tls.clone(),
                router(app.clone()),
                connections.clone(),
            );
            tasks.spawn(async move {
                serving.await;
                LighthouseError::Mesh("the HTTPS server ended".into())
            });
        }
        tracing::info!(name = own.name, ?https, udp, key = %own.key, "lighthouse runs");
        Ok(Self {
            https,
            udp,
            app,
            tasks,
            _running: ends,
        })
    }

    /// What it knows.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.app.registry
    }

    /// Waits until a part of it fails, which should never be.
    pub async fn failed(&mut self) -> LighthouseError {
        match self.tasks.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(panic)) => LighthouseError::Mesh(format!("a part of the lighthouse: {panic}")),
            None => LighthouseError::Mesh("nothing runs any more".into()),
        }
    }
}

/// Each member holds some connections; what the system allows by default is often 1024. How many
/// files it may open now.
fn raise_open_files() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "the number of open files stays as it is");
    }
    let now = getrlimit(Resource::RLIMIT_NOFILE).map_or(USUAL_FILES, |(now, _)| now);
    usize::try_from(now).unwrap_or(usize::MAX)
}

fn unfit(reason: &str) -> LighthouseError {
    LighthouseError::Documents {
        place: "documents.json".into(),
        reason: reason.into(),
    }
}

fn own_entry(
    registry: &Registry,
    key: &holdfast_core::keys::PublicKey,
) -> Result<Entry, LighthouseError> {
    let held = registry.held();
    let entry = held.lighthouses.lighthouses.iter().find(|l| l.key == *key);
    entry.cloned().ok_or_else(|| {
        unfit(&format!(
            "the lighthouses document does not name this lighthouse (key {key})"
        ))
    })
}

/// Every address of this machine on the ports of `host:port` texts.
fn ports(texts: &[String]) -> Vec<SocketAddr> {
    let ports = texts
        .iter()
        .filter_map(|t| t.rsplit_once(':')?.1.parse::<u16>().ok());
    let unique: std::collections::BTreeSet<u16> = ports.collect();
    unique
        .into_iter()
        .map(|p| (Ipv6Addr::UNSPECIFIED, p).into())
        .collect()
}
