//! `holdfast lighthouse list`.

use crate::app::App;
use crate::cluster_dir::{ClusterDir, KeyFile};
use crate::lighthouse::explain;
use crate::table;
use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use holdfast_client::LighthouseClient;
use holdfast_core::cluster::MeshIndex;
use holdfast_core::documents::Lighthouse;
use holdfast_tls::Identity;
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;

/// One that says nothing for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Row {
    name: String,
    index: MeshIndex,
    https: Vec<String>,
    udp: Vec<String>,
    key: String,
    answers: bool,
    /// Why it does not answer, or what is wrong with its answer.
    problem: Option<String>,
    /// Members that it knows.
    members: Option<usize>,
    /// Generation of the lighthouses document that it holds.
    holds: Option<u64>,
}

/// Runs the verb.
pub async fn run(app: &App) -> Result<()> {
    let cluster = app.cluster()?;
    let operator = app.key(&cluster, KeyFile::Operator)?;
    let identity = Identity::from_key(&operator).context("the operator's key")?;
    let named = cluster.documents()?.lighthouses;
    let rows = named
        .lighthouses
        .iter()
        .map(|l| row(l, &cluster, &identity));
    let rows: Vec<Row> = join_all(rows).await.into_iter().collect::<Result<_>>()?;
    app.print(&rows, || {
        table::table(
            ["lighthouse", "TCP", "UDP", "state", "members"],
            rows.iter().map(|r| {
                let state = match (&r.problem, r.holds) {
                    (Some(why), _) => why.clone(),
                    (None, Some(held)) if held < named.generation => {
                        "behind: `holdfast cluster push`".into()
                    }
                    (None, _) => "answers".into(),
                };
                [
                    r.name.clone(),
                    r.https.join(" "),
                    r.udp.join(" "),
                    state,
                    r.members.map(|n| n.to_string()).unwrap_or_default(),
                ]
            }),
        )
    })
}

async fn row(l: &Lighthouse, cluster: &ClusterDir, identity: &Identity) -> Result<Row> {
    let client =
        LighthouseClient::new(cluster.way_to(l), l.key, Some(identity)).map_err(explain)?;
    let asked = async {
        let set = client.documents().await?;
        Ok::<_, holdfast_client::ClientError>((set, client.nodes().await?.len()))
    };
    let answer = match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let roots = cluster.roots();
    let answer = answer.and_then(|(set, members)| {
        let opened = set.lighthouses.open(|key| roots.contains(key));
        let opened = opened.map_err(|e| format!("serves what no root signed: {e}"))?;
        Ok((opened.generation, members))
    });
    Ok(Row {
        name: l.name.clone(),
        index: l.index,
        https: l.https.clone(),
        udp: l.udp.clone(),
        key: l.key.to_string(),
        answers: answer.is_ok(),
        members: answer.as_ref().ok().map(|(_, members)| *members),
        holds: answer.as_ref().ok().map(|(holds, _)| *holds),
        problem: answer.err(),
    })
}
