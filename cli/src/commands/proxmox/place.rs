//! Where on the host things go.

use super::connect::explain;
use crate::exit::Exit;
use anyhow::Result;
use holdfast_proxmox::Client;
use holdfast_proxmox::answers::{self, MachineEntry, StorageEntry};
use holdfast_proxmox::calls::{self, Call};
use holdfast_proxmox::names::{MachineName, Node, Storage, VmId};
use serde_json::Value;

/// Makes a call; its failure explained.
pub async fn ask(client: &Client, call: &Call) -> Result<Value> {
    client.call(call).await.map_err(|e| explain(client, e))
}

/// The node that was asked for, or the only one.
pub async fn node(client: &Client, wanted: Option<Node>) -> Result<Node> {
    let nodes = answers::online_nodes(&ask(client, &calls::nodes()).await?)?;
    choose_node(&nodes, wanted).map_err(|why| Exit::Usage.error(why))
}

fn choose_node(online: &[Node], wanted: Option<Node>) -> Result<Node, String> {
    let list: Vec<&str> = online.iter().map(Node::as_str).collect();
    let list = list.join(", ");
    match (wanted, online) {
        (Some(node), _) if online.contains(&node) => Ok(node),
        (Some(node), _) => Err(format!("no node {node} is online; these are: {list}")),
        (None, [one]) => Ok(one.clone()),
        (None, []) => Err("no node is online".into()),
        (None, _) => Err(format!("choose one of the nodes with --node: {list}")),
    }
}

/// The storages of a node.
pub async fn storages(client: &Client, node: &Node) -> Result<Vec<StorageEntry>> {
    Ok(answers::storages(
        &ask(client, &calls::storages(node)).await?,
    )?)
}

/// A storage that holds `kind`: the one asked for by `option`, or the obvious one.
pub fn choose(
    storages: &[StorageEntry],
    kind: &str,
    option: &str,
    wanted: Option<&Storage>,
) -> Result<StorageEntry> {
    pick(storages, kind, option, wanted).map_err(|why| Exit::Usage.error(why))
}

fn pick(
    storages: &[StorageEntry],
    kind: &str,
    option: &str,
    wanted: Option<&Storage>,
) -> Result<StorageEntry, String> {
    let fits: Vec<&StorageEntry> = storages
        .iter()
        .filter(|s| s.active && s.holds(kind))
        .collect();
    let names: Vec<String> = fits.iter().map(|s| s.storage.to_string()).collect();
    let names = names.join(", ");
    if let Some(wanted) = wanted {
        let Some(entry) = storages.iter().find(|s| &s.storage == wanted) else {
            return Err(format!(
                "no storage {wanted} is there, or the token may not see it (privilege Datastore.Audit on \
                 /storage/{wanted}); these hold {kind}: {names}"
            ));
        };
        if !entry.holds(kind) {
            let content = entry.content.join(",");
            return Err(format!(
                "storage {wanted} does not take {kind}, only {content}; these do: {names}\n  on the host \
                 `pvesm set {wanted} --content {content},{kind}` allows it where the storage's type can"
            ));
        }
        if !entry.active {
            return Err(format!("storage {wanted} cannot be reached by the node"));
        }
        return Ok(entry.clone());
    }
    let local = fits.iter().find(|s| s.storage.as_str() == "local");
    match (fits.as_slice(), local) {
        ([], _) => Err(format!(
            "no storage takes {kind}, or the token sees none (privilege Datastore.Audit): on the host \
             `pvesm set STORAGE --content …,{kind}` allows it"
        )),
        ([one], _) => Ok((*one).clone()),
        // Files go where Proxmox itself puts them; for disks there is no such place.
        (_, Some(local)) if kind != "images" => Ok((*local).clone()),
        _ => Err(format!("choose a storage with {option}: {names}")),
    }
}

/// All machines that the token may see.
pub async fn machines(client: &Client) -> Result<Vec<MachineEntry>> {
    Ok(answers::machines(&ask(client, &calls::machines()).await?)?)
}

/// The one machine that a number or a name means.
pub fn find<'a>(machines: &'a [MachineEntry], text: &str) -> Result<&'a MachineEntry> {
    let found: Vec<&MachineEntry> = match text.parse::<VmId>() {
        Ok(id) => machines.iter().filter(|m| m.id == id).collect(),
        Err(_) => machines.iter().filter(|m| m.name == text).collect(),
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Exit::Failed.error(format!(
            "no machine {text} is there, or the token may not see it (privilege VM.Audit)"
        ))),
        many => {
            let ids: Vec<String> = many.iter().map(|m| m.id.to_string()).collect();
            Err(Exit::Usage.error(format!(
                "several machines are called {text}: give a number, one of {}",
                ids.join(", ")
            )))
        }
    }
}

/// Refuses a name that a machine has already: it may be one that an earlier try left.
pub fn name_is_free(machines: &[MachineEntry], name: &MachineName) -> Result<()> {
    match machines.iter().find(|m| m.name == name.as_str()) {
        None => Ok(()),
        Some(m) => Err(Exit::Failed.error(format!(
            "a machine is called {name} already: {} on {}; `holdfast proxmox destroy {}` removes it if it is \
             one that was left half made",
            m.id, m.node, m.id
        ))),
    }
}

/// A free number.
pub async fn free_id(client: &Client, wanted: Option<VmId>) -> Result<VmId> {
    match (client.call(&calls::next_id(wanted)).await, wanted) {
        (Ok(data), _) => Ok(answers::free_id(&data)?),
        (Err(e), Some(id)) if e.refusal().is_some_and(|r| r.status == 400) => Err(Exit::Failed
            .error(format!(
                "VM {id} exists already: leave --vmid away for a free number ({e})"
            ))),
        (Err(e), _) => Err(explain(client, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(name: &str, content: &str) -> StorageEntry {
        StorageEntry {
            storage: name.parse().unwrap(),
            content: content.split(',').map(str::to_owned).collect(),
            active: true,
            free: None,
        }
    }

    #[test]
    fn storages_are_chosen_where_there_is_one_choice() {
        let all = [
            storage("local", "iso,import,vztmpl"),
            storage("nas", "iso,images"),
            storage("lvm", "images"),
        ];
        let chosen = |kind: &str, wanted: Option<&str>| {
            let wanted = wanted.map(|w| w.parse().unwrap());
            pick(&all, kind, "--x", wanted.as_ref()).map(|s| s.storage.to_string())
        };
        assert_eq!(chosen("iso", None).unwrap(), "local");
        assert_eq!(chosen("import", None).unwrap(), "local");
        assert_eq!(chosen("iso", Some("nas")).unwrap(), "nas");
        assert!(chosen("images", None).unwrap_err().contains("nas, lvm"));
        let error = chosen("iso", Some("lvm")).unwrap_err();
        assert!(
            error.contains("pvesm set lvm --content images,iso"),
            "{error}"
        );
        assert!(
            chosen("iso", Some("gone"))
                .unwrap_err()
                .contains("Datastore.Audit")
        );
        assert!(chosen("snippets", None).is_err());
    }

    #[test]
    fn one_node_needs_no_choice() {
        let a: Node = "a".parse().unwrap();
        let b: Node = "b".parse().unwrap();
        assert_eq!(choose_node(std::slice::from_ref(&a), None), Ok(a.clone()));
        let both = [a, b.clone()];
        assert!(choose_node(&both, None).unwrap_err().contains("a, b"));
        assert_eq!(choose_node(&both, Some(b.clone())), Ok(b));
    }
}
