//! Names and values of kernel settings.

use super::setting::Setting;

/// The name as sysctl.conf(5) has it, checked: it leads into `/proc/sys` and nowhere else.
///
/// # Errors
/// What is wrong with it.
pub(super) fn name(key: &str) -> Result<String, String> {
    // The first separator is the one between folders (sysctl.d(5)).
    let parts: Vec<&str> = match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('.') => key.split('.').collect(),
        Some(_) => key.split('/').collect(),
        None => Vec::new(),
    };
    let good = |part: &&str| {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"_-./".contains(&c);
        let dots = part.bytes().all(|c| c == b'.' || c == b'/');
        !dots && part.bytes().all(plain)
    };
    match parts.len() > 1 && parts.iter().all(good) {
        true => Ok(key.to_owned()),
        false => Err(format!(
            "{key:?} is no name of a kernel setting, like \"net.ipv4.ip_forward\""
        )),
    }
}

/// The value as the kernel takes it: one line.
///
/// # Errors
/// What is wrong with it.
pub(super) fn value(key: &str, value: Setting) -> Result<String, String> {
    let text = match value {
        Setting::Flag(flag) => u8::from(flag).to_string(),
        Setting::Number(number) => number.to_string(),
        Setting::Text(text) => text,
        Setting::List(_) => {
            return Err(format!(
                "{key:?} is given a list; several values are one text, like \"4096 87380 6291456\""
            ));
        }
    };
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err(format!(
            "{key:?}: {text:?} must be one line that is not empty"
        ));
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_proc_sys() {
        assert!(name("net.ipv4.ip_forward").is_ok());
        assert!(name("net/ipv4/conf/eth0.1/rp_filter").is_ok());
        assert!(name("net.ipv4.conf.eth0/1.rp_filter").is_ok());
        for bad in [
            "swappiness",
            "",
            "net..ipv4",
            "../x",
            "net/../../x",
            "/etc",
            "net.ipv4 .x",
            "a.b\n",
            "net.ipv4.conf.*.rp_filter",
            "net/",
            "a.//.b",
        ] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_are_one_line() {
        let text = |t: &str| value("k", Setting::Text(t.into()));
        assert_eq!(text(" 1 2 3 ").unwrap(), "1 2 3");
        assert_eq!(value("k", Setting::Flag(true)).unwrap(), "1");
        assert_eq!(value("k", Setting::Number(-1)).unwrap(), "-1");
        assert!(text("").is_err() && text("1\n2").is_err());
        assert!(value("k", Setting::List(vec![])).is_err());
    }
}
