//! Whether the node is Ready, asked of the Kubernetes API with what k3s wrote for its
//! administrator.

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use reqwest::{Client, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a kubeconfig holds for one user of one cluster.
struct Credentials {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// Reads the three values that k3s writes as base64 on a line each.
fn credentials(kubeconfig: &str) -> anyhow::Result<Credentials> {
    let value = |key: &str| -> anyhow::Result<Vec<u8>> {
        let line = kubeconfig
            .lines()
            .find_map(|l| l.trim().strip_prefix(key)?.strip_prefix(':'));
        let text = line.ok_or_else(|| anyhow!("the kubeconfig has no {key}"))?;
        B64.decode(text.trim().trim_matches('"'))
            .with_context(|| format!("{key} is no base64"))
    };
    Ok(Credentials {
        authority: value("certificate-authority-data")?,
        certificate: value("client-certificate-data")?,
        key: Zeroizing::new(value("client-key-data")?),
    })
}

fn client(credentials: &Credentials) -> anyhow::Result<Client> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&credentials.authority) {
        roots.add(certificate?)?;
    }
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&credentials.certificate).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&credentials.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(PATIENCE)
        .build()?)
}

#[derive(Deserialize)]
struct NodeObject {
    #[serde(default)]
    status: NodeObjectStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeObjectStatus {
    conditions: Vec<Condition>,
    node_info: NodeInfo,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: String,
}

/// Ready, by an object that kubelet wrote in this boot: one of before says nothing.
fn is_ready(object: &NodeObject, boot_id: &str) -> bool {
    let status = &object.status;
    status.node_info.boot_id == boot_id.trim()
        && status
            .conditions
            .iter()
            .any(|c| c.r#type == "Ready" && c.status == "True")
}

/// Asks again and again, with the same client while k3s keeps its keys.
#[derive(Default)]
pub struct Asker {
    of: Option<(String, Client)>,
}

impl Asker {
    /// Whether node `name` is Ready now.
    ///
    /// # Errors
    /// While k3s has written nothing, or its API does not answer.
    pub async fn ready(&mut self, name: &str) -> anyhow::Result<bool> {
        let text = tokio::fs::read_to_string(super::KUBECONFIG)
            .await
            .context(super::KUBECONFIG)?;
        let client = match &self.of {
            Some((of, client)) if *of == text => client.clone(),
            _ => {
                let fresh = client(&credentials(&text)?)?;
                self.of = Some((text, fresh.clone()));
                fresh
            }
        };
        let url = format!("https://{}/api/v1/nodes/{name}", super::API);
        let response = client.get(url).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let object: NodeObject =
            serde_json::from_slice(&response.error_for_status()?.bytes().await?)?;
        let boot_id = tokio::fs::read_to_string("/proc/sys/kernel/random/boot_id").await?;
        Ok(is_ready(&object, &boot_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(ready: &str, boot: &str) -> NodeObject {
        serde_json::from_value(serde_json::json!({
            "kind": "Node",
            "status": {
                "conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": ready, "reason": "KubeletReady"},
                ],
                "nodeInfo": {"bootID": boot, "kernelVersion": "6.12"},
            },
        }))
        .unwrap()
    }

    #[test]
    fn ready_counts_only_when_it_is_of_this_boot() {
        assert!(is_ready(&object("True", "b1"), "b1\n"));
        assert!(!is_ready(&object("True", "b0"), "b1"));
        assert!(!is_ready(&object("Unknown", "b1"), "b1"));
        let empty: NodeObject = serde_json::from_str(r#"{"kind":"Node"}"#).unwrap();
        assert!(!is_ready(&empty, "b1"));
    }

    #[test]
    fn a_kubeconfig_is_read_whatever_its_indentation() {
        let text = "clusters:\n- cluster:\n    certificate-authority-data: Q0E=\nusers:\n- user:\n    client-certificate-data: Q0VSVA==\n    client-key-data: \"S0VZ\"\n";
        let c = credentials(text).unwrap();
        assert_eq!(
            (&c.authority[..], &c.certificate[..], &c.key[..]),
            (&b"CA"[..], &b"CERT"[..], &b"KEY"[..])
        );
        let missing = credentials("a: b").err().unwrap().to_string();
        assert!(missing.contains("certificate-authority-data"));
    }
}
