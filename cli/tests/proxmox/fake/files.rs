//! Files on storages: uploaded, removed.

use super::state::{Reply, State};
use std::collections::BTreeMap;

impl State {
    pub fn remove_file(&mut self, storage: &str, volume: &str) -> Result<Reply, Reply> {
        if let Some(no) = self.lacks(&format!("/storage/{storage}"), "Datastore.Allocate") {
            return Err(no);
        }
        let volume = volume.to_owned();
        Ok(self.begin("imgdel", storage, "removing", move |state| {
            let gone = state.files.remove(&volume);
            gone.map(drop)
                .ok_or(format!("volume '{volume}' does not exist"))
        }))
    }

    pub fn upload(
        &mut self,
        storage: &str,
        params: &BTreeMap<String, String>,
        bytes: Vec<u8>,
    ) -> Result<Reply, Reply> {
        use sha2::Digest as _;
        if let Some(no) = self.lacks(&format!("/storage/{storage}"), "Datastore.AllocateTemplate") {
            return Err(no);
        }
        if storage != "local" {
            return Err(Reply::no(500, "can't upload to storage type 'lvmthin'"));
        }
        let (content, name) = (params["content"].clone(), params["filename"].clone());
        let (extension, magic): (&str, (usize, &[u8])) = match content.as_str() {
            "iso" => (".iso", (32769, b"CD001")),
            "import" => (".qcow2", (0, b"QFI\xfb")),
            _ => return Err(Reply::parameter("content", "not allowed")),
        };
        if !name.ends_with(extension) {
            return Err(Reply::parameter("filename", "wrong file extension"));
        }
        if !self.local_content.split(',').any(|c| c == content) {
            let words = format!("storage '{storage}' does not support '{content}' content");
            return Err(Reply::no(500, &words));
        }
        let digest = sha2::Sha256::digest(&bytes);
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let expected = params["checksum"].clone();
        let good = bytes.get(magic.0..magic.0 + magic.1.len()) == Some(magic.1);
        let volume = format!("{storage}:{content}/{name}");
        let log = "starting file import from: /var/tmp/pveupload-0";
        Ok(self.begin("imgcopy", "", log, move |state| {
            if digest != expected {
                return Err(format!(
                    "checksum mismatch: got '{digest}' != expect '{expected}'"
                ));
            }
            if !good {
                return Err("not a valid file".into());
            }
            if bytes.len() as u64 > state.local_free {
                return Err("import failed: No space left on device".into());
            }
            state.files.insert(volume, bytes);
            Ok(())
        }))
    }
}
