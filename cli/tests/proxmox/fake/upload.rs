//! Multipart bodies as Proxmox's own parser takes them.

use std::collections::BTreeMap;

type Form = (BTreeMap<String, String>, Vec<u8>);

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

pub fn parse(content_type: &str, body: &[u8]) -> Result<Form, String> {
    let boundary = content_type
        .strip_prefix("multipart/form-data; boundary=")
        .ok_or_else(|| format!("upload 'Content-Type '{content_type}' not implemented"))?;
    let mark = format!("--{boundary}\r\n").into_bytes();
    let end = format!("\r\n--{boundary}").into_bytes();
    let mut fields = BTreeMap::new();
    let mut file = None;
    let mut rest = body;
    while let Some(after) = rest.strip_prefix(mark.as_slice()) {
        let head = find(after, b"\r\n\r\n").ok_or("no end of header")?;
        let header = String::from_utf8_lossy(&after[..head]).into_owned();
        let content = &after[head + 4..];
        let len = find(content, &end).ok_or("upload failed")?;
        let quoted = |name: &str| {
            let (_, value) = header.split_once(&format!("; {name}=\""))?;
            Some(value.split('"').next()?.to_owned())
        };
        let name = quoted("name").ok_or("wrong content disposition")?;
        match quoted("filename") {
            Some(filename) if name == "filename" => {
                fields.insert(name, filename);
                file = Some(content[..len].to_vec());
            }
            Some(_) => return Err("wrong field name for file upload".into()),
            None => {
                let value = String::from_utf8_lossy(&content[..len]).into_owned();
                fields.insert(name, value);
            }
        }
        rest = &content[len + 2..];
    }
    if rest != format!("--{boundary}--\r\n").as_bytes() {
        return Err("upload failed".into());
    }
    Ok((fields, file.ok_or("upload failed")?))
}
