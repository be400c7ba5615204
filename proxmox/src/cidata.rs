//! The drive that hands a machine its configuration: a small volume labelled `cidata` with the
//! files `user-data`, `meta-data` and perhaps `network-config` (cloud-init's `NoCloud`).

use crate::iso::{self, IsoError};

/// The volume's label.
pub const LABEL: &str = "cidata";
/// The seed.
pub const USER_DATA: &str = "user-data";
/// Of which machine this is: `instance-id`, perhaps `local-hostname`.
pub const META_DATA: &str = "meta-data";
/// Addresses, in cloud-init's network configuration.
pub const NETWORK_CONFIG: &str = "network-config";

/// An ISO 9660 image of the drive with these files, name and content.
///
/// # Errors
/// [`IsoError`] when a file cannot stand on it.
pub fn iso(files: &[(&str, &[u8])]) -> Result<Vec<u8>, IsoError> {
    iso::image(LABEL, files)
}

/// The text of `meta-data`: an instance id that no other machine has makes each one a new one.
#[must_use]
pub fn meta_data(instance_id: &str, host_name: Option<&str>) -> String {
    let mut text = format!("instance-id: {instance_id}\n");
    if let Some(name) = host_name {
        text += &format!("local-hostname: {name}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_data_is_what_cloud_init_reads() {
        assert_eq!(meta_data("a", None), "instance-id: a\n");
        assert_eq!(
            meta_data("a", Some("n1")),
            "instance-id: a\nlocal-hostname: n1\n"
        );
    }
}
