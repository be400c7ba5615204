//! U-Boot's environment as a file: a CRC-32 of what follows, then `name=value` strings, each with a
//! zero behind it, and one more zero (U-Boot `include/env_internal.h`, `tools/mkenvimage.c`). Without
//! `CONFIG_SYS_REDUNDAND_ENVIRONMENT` no flag byte stands between.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// `CONFIG_ENV_SIZE` of U-Boot's Raspberry Pi configurations, in bytes.
const LEN: usize = 0x4000;

/// The file `uboot.env`.
///
/// # Errors
/// When the variables do not fit.
pub(crate) fn file(variables: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut data: Vec<u8> = variables
        .iter()
        .flat_map(|(name, value)| format!("{name}={value}\0").into_bytes())
        .collect();
    data.push(0);
    if data.len() > LEN - 4 {
        return Err(Error::build(
            "U-Boot's environment",
            format!("has {} bytes, {} fit", data.len(), LEN - 4),
        ));
    }
    data.resize(LEN - 4, 0);
    let mut out = crc32fast::hash(&data).to_le_bytes().to_vec();
    out.extend(data);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_follow_their_checksum() {
        let variables = [("a", "1"), ("bootcmd", "run x; y")];
        let variables = variables
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let file = file(&variables).unwrap();
        assert_eq!(file.len(), LEN);
        assert!(file[4..].starts_with(b"a=1\0bootcmd=run x; y\0\0"));
        assert_eq!(file[..4], crc32fast::hash(&file[4..]).to_le_bytes());
        let long = BTreeMap::from([("a".to_owned(), "x".repeat(LEN))]);
        assert!(super::file(&long).is_err());
    }
}
