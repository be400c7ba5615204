//! A seed as one short line, for places that take no file: the serial number of a machine's SMBIOS
//! (DMTF DSP0134, type 1), of which Proxmox VE lets one write 512 characters with all other fields.
//!
//! ```text
//! text:   "HFS1", then base64 (RFC 4648, standard alphabet, no padding) of
//! 0    4  CRC-32 (IEEE) of all that follows, little endian
//! 4   16  cluster id
//! 20  32  token
//! 52   4  issued, Unix seconds, little endian (until 2106)
//! 56   1  role (0 server, 1 agent, 2 bare), + 4 dual stack, + 8 rejoin
//! 57   1  number of roots, then 32 bytes each
//!      1  number of lighthouses, then each: key (32), number of addresses (1), addresses
//!         cluster, grant, name (no bytes: none)
//!         the rest of the seed: TOML, to the end
//! ```
//! Addresses and names are a length byte and that many bytes. The alphabet is the one that
//! Proxmox's `smbios1` allows for `serial=` as it is; whoever sets `base64=1` encodes once more, and
//! the machine sees the same text.

use super::{SeedError, VERSION};
use crate::keys::PrivateKey;
use crate::seed::Seed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as B64;
use toml::{Table, Value};
use zeroize::Zeroizing;

/// What every such line begins with; other serial numbers are no seeds.
pub const MAGIC: &str = "HFS1";
/// Longest line that is written: what Proxmox's 512 characters leave beside
/// `uuid=` with its 36 characters and `serial=`.
pub const MAX_CHARS: usize = 512 - "uuid=,serial=".len() - 36;
/// Longest line that is read. QEMU itself has no limit.
pub const MAX_READ: usize = 8 * 1024;

/// Why no line was made of a seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Too much in it.
    #[error(
        "the seed takes {chars} characters, and Proxmox's smbios1 has place for {MAX_CHARS} beside the machine's UUID: \
         leave out {largest}, or hand it over as a cidata drive"
    )]
    TooLong {
        /// Of the line.
        chars: usize,
        /// What takes most.
        largest: String,
    },
    /// A number or text that has no place in the form.
    #[error("{0} has no place in the short form")]
    Field(&'static str),
    /// The rest cannot be written as TOML.
    #[error("the seed cannot be written as TOML: {0}")]
    Toml(String),
}

/// Why a line that begins as a seed is none.
fn broken(why: &str) -> SeedError {
    SeedError::Compact(why.into())
}

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn byte(&mut self, n: usize, what: &'static str) -> Result<(), PackError> {
        self.0
            .push(u8::try_from(n).map_err(|_| PackError::Field(what))?);
        Ok(())
    }

    fn text(&mut self, text: &str, what: &'static str) -> Result<(), PackError> {
        self.byte(text.len(), what)?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The seed as a line.
///
/// # Errors
/// [`PackError`], with what to leave out.
pub fn pack(seed: &Seed) -> Result<Zeroizing<String>, PackError> {
    use crate::names::Role;
    let mut out = Writer(Zeroizing::new(vec![0; 4]));
    out.0.extend_from_slice(&seed.cluster_id.0);
    out.0.extend_from_slice(seed.token.as_bytes());
    let issued = u32::try_from(seed.issued).map_err(|_| PackError::Field("issued"))?;
    out.0.extend_from_slice(&issued.to_le_bytes());
    let role = match seed.role {
        Role::Server => 0,
        Role::Agent => 1,
        Role::Bare => 2,
    };
    out.0
        .push(role + (u8::from(seed.dual_stack) << 2) + (u8::from(seed.rejoin) << 3));
    out.byte(seed.roots.len(), "roots")?;
    for root in &seed.roots {
        out.0.extend_from_slice(&root.0);
    }
    out.byte(seed.lighthouses.len(), "lighthouses")?;
    for lighthouse in &seed.lighthouses {
        out.0.extend_from_slice(&lighthouse.key.0);
        out.byte(lighthouse.https.len(), "lighthouses.https")?;
        for address in &lighthouse.https {
            out.text(address, "lighthouses.https")?;
        }
    }
    out.text(seed.cluster.as_str(), "cluster")?;
    out.text(seed.grant.as_str(), "grant")?;
    out.text(seed.name.as_ref().map_or("", |n| n.as_str()), "name")?;
    let rest = rest(seed)?;
    let rest_text =
        Zeroizing::new(toml::to_string(&rest).map_err(|e| PackError::Toml(e.to_string()))?);
    out.0.extend_from_slice(rest_text.as_bytes());
    let crc = crc32fast::hash(&out.0[4..]);
    out.0[..4].copy_from_slice(&crc.to_le_bytes());
    let mut line = Zeroizing::new(String::from(MAGIC));
    B64.encode_string(&*out.0, &mut line);
    if line.len() > MAX_CHARS {
        return Err(PackError::TooLong {
            chars: line.len(),
            largest: largest(&rest),
        });
    }
    Ok(line)
}

/// The fields that have no place of their own.
fn rest(seed: &Seed) -> Result<Table, PackError> {
    let mut table = Table::try_from(seed).map_err(|e| PackError::Toml(e.to_string()))?;
    for known in [
        "version",
        "cluster",
        "cluster_id",
        "dual_stack",
        "name",
        "role",
        "issued",
        "grant",
        "token",
        "roots",
        "lighthouses",
        "rejoin",
    ] {
        table.remove(known);
    }
    table.retain(|_, value| !matches!(value, Value::Table(t) if t.is_empty()));
    Ok(table)
}

fn largest(rest: &Table) -> String {
    let len = |value: &Value| value.to_string().len();
    rest.iter().max_by_key(|(_, value)| len(value)).map_or_else(
        || "lighthouses or their addresses".into(),
        |(key, _)| format!("[{key}]"),
    )
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], SeedError> {
        let (head, tail) = self
            .0
            .split_at_checked(n)
            .ok_or_else(|| broken("it ends too early"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SeedError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8, SeedError> {
        Ok(self.array::<1>()?[0])
    }

    fn text(&mut self) -> Result<&'a str, SeedError> {
        let len = usize::from(self.byte()?);
        std::str::from_utf8(self.take(len)?).map_err(|_| broken("a name in it is not UTF-8"))
    }
}

/// The seed's TOML text, if `line` begins as one; it is checked as any seed is.
///
/// # Errors
/// [`SeedError::Compact`] for a line that was cut or changed.
pub fn unpack(line: &str) -> Option<Result<Zeroizing<String>, SeedError>> {
    let line = line.trim();
    let encoded = line.strip_prefix(MAGIC)?.trim_end_matches('=');
    Some(expand(encoded))
}

fn expand(encoded: &str) -> Result<Zeroizing<String>, SeedError> {
    use crate::keys::PublicKey;
    if encoded.len() > MAX_READ {
        return Err(broken("it is longer than any"));
    }
    let bytes = Zeroizing::new(
        B64.decode(encoded)
            .map_err(|_| broken("it is not base64: was it cut?"))?,
    );
    let mut from = Reader(&bytes);
    let crc = u32::from_le_bytes(from.array()?);
    if crc32fast::hash(from.0) != crc {
        return Err(broken("its checksum differs: it was cut or changed"));
    }
    let key = |bytes: [u8; 32]| Value::String(PublicKey(bytes).to_string());
    let mut table = Table::new();
    let mut put = |name: &str, value: Value| table.insert(name.to_owned(), value);
    put("version", Value::Integer(VERSION.into()));
    put(
        "cluster_id",
        Value::String(crate::keys::hex(&from.array::<16>()?)),
    );
    let token = PrivateKey::from_bytes(from.array()?);
    put("token", Value::String(token.to_text()));
    let issued = u32::from_le_bytes(from.array()?);
    put("issued", Value::Integer(issued.into()));
    let flags = from.byte()?;
    let role = match flags & 3 {
        0 => "server",
        1 => "agent",
        2 => "bare",
        _ => return Err(broken("it names a role that this image does not know")),
    };
    if flags >> 4 != 0 {
        return Err(broken("a later version wrote it: flash a newer image"));
    }
    put("role", Value::String(role.into()));
    put("dual_stack", Value::Boolean(flags & 4 != 0));
    put("rejoin", Value::Boolean(flags & 8 != 0));
    let mut roots = vec![];
    for _ in 0..from.byte()? {
        roots.push(key(from.array()?));
    }
    put("roots", Value::Array(roots));
    let mut lighthouses = vec![];
    for _ in 0..from.byte()? {
        let mut lighthouse = Table::new();
        lighthouse.insert("key".into(), key(from.array()?));
        let mut https = vec![];
        for _ in 0..from.byte()? {
            https.push(Value::String(from.text()?.into()));
        }
        lighthouse.insert("https".into(), Value::Array(https));
        lighthouses.push(Value::Table(lighthouse));
    }
    put("lighthouses", Value::Array(lighthouses));
    put("cluster", Value::String(from.text()?.into()));
    put("grant", Value::String(from.text()?.into()));
    let name = from.text()?;
    if !name.is_empty() {
        put("name", Value::String(name.into()));
    }
    let rest = std::str::from_utf8(from.0).map_err(|_| broken("its rest is not UTF-8"))?;
    let rest: Table = toml::from_str(rest).map_err(|e| broken(e.message()))?;
    for (name, value) in rest {
        if table.contains_key(&name) {
            return Err(broken("it says a field twice"));
        }
        table.insert(name, value);
    }
    toml::to_string(&table)
        .map(Zeroizing::new)
        .map_err(|e| broken(&e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PublicKey;
    use crate::seed::{Country, SeedLighthouse, SeedWifi, WifiNetwork};
    use proptest::prelude::*;

    /// As `holdfast cluster new` and `holdfast seed new` make it.
    fn usual() -> Seed {
        let key = |n: u8| PrivateKey::from_bytes([n; 32]).public();
        let mut seed = crate::seed::tests::seed();
        seed.cluster = "homelab".parse().unwrap();
        seed.grant = "0123456789abcdefghjkmnpqrs".parse().unwrap();
        seed.name = Some("shelf-worker-01".parse().unwrap());
        seed.roots = vec![key(1), key(2)];
        seed.lighthouses = vec![SeedLighthouse {
            https: vec!["lighthouse.example.org:8443".into()],
            key: key(3),
        }];
        seed
    }

    fn back(line: &str) -> Seed {
        Seed::parse(&unpack(line).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn an_ordinary_seed_fits_and_comes_back_whole() {
        let seed = usual();
        let line = pack(&seed).unwrap();
        assert_eq!(line.len(), 318);
        assert!(
            line.chars()
                .all(|c| c.is_ascii_alphanumeric() || "+/".contains(c))
        );
        assert_eq!(back(&line).to_toml().unwrap(), seed.to_toml().unwrap());
        assert_eq!(back(&format!("{}==\n", *line)).grant, seed.grant);

        let mut more = usual();
        more.network.addresses = vec!["192.168.1.9/24".parse().unwrap()];
        more.network.gateways = vec!["192.168.1.1".parse().unwrap()];
        more.network.dns = vec!["192.168.1.1".parse().unwrap()];
        more.board = Some("proxmox".into());
        more.rejoin = true;
        let line = pack(&more).unwrap();
        assert!(line.len() <= MAX_CHARS, "{}", line.len());
        assert_eq!(back(&line).to_toml().unwrap(), more.to_toml().unwrap());
    }

    #[test]
    fn what_does_not_fit_says_what_to_leave_out() {
        let mut seed = usual();
        seed.wifi = Some(SeedWifi {
            country: Country::try_from("DE".to_owned()).unwrap(),
            networks: vec![WifiNetwork {
                ssid: "x".repeat(32).parse().unwrap(),
                passphrase: Some("sesame-".repeat(9).parse().unwrap()),
                hidden: true,
            }],
        });
        let error = pack(&seed).unwrap_err();
        assert!(
            matches!(&error, PackError::TooLong { chars, largest } if *chars > MAX_CHARS && largest == "[wifi]"),
            "{error}"
        );
        assert!(!error.to_string().contains("sesame"));
    }

    #[test]
    fn other_serial_numbers_are_no_seeds_and_a_cut_one_is_a_bad_seed() {
        assert!(unpack("VMware-56 4d 1f").is_none() && unpack("").is_none());
        let line = pack(&usual()).unwrap();
        for cut in 4..line.len() {
            assert!(unpack(&line[..cut]).unwrap().is_err(), "{cut}");
        }
        assert!(unpack("HFS1 not base64").unwrap().is_err());
    }

    proptest! {
        #![proptest_config(crate::seed::cases())]
        #[test]
        fn any_text_is_refused_without_a_panic(text in "\\PC{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = unpack(&format!("{MAGIC}{text}"));
            // With a checksum that holds, the rest is what is read.
            let mut sealed = crc32fast::hash(&bytes).to_le_bytes().to_vec();
            sealed.extend(&bytes);
            let line = format!("{MAGIC}{}", B64.encode(&sealed));
            if let Some(Ok(text)) = unpack(&line) {
                let _ = Seed::parse(&text);
            }
        }

        #[test]
        fn a_changed_good_one_gives_no_panic_and_no_second_seed(at in 0usize..300, with in any::<u8>(), reseal in any::<bool>()) {
            let line = pack(&usual()).unwrap();
            let mut bytes = B64.decode(&line[4..]).unwrap();
            let at = at % bytes.len();
            let same = bytes[at] == with;
            bytes[at] = with;
            if reseal {
                let crc = crc32fast::hash(&bytes[4..]).to_le_bytes();
                bytes[..4].copy_from_slice(&crc);
            }
            let read = unpack(&format!("{MAGIC}{}", B64.encode(&bytes))).unwrap();
            if let Ok(text) = read {
                prop_assert!(reseal || same);
                let _ = Seed::parse(&text);
            } else {
                prop_assert!(!same);
            }
        }
    }

    #[test]
    fn keys_are_written_as_they_are() {
        let seed = usual();
        let read = back(&pack(&seed).unwrap());
        let keys = |s: &Seed| -> Vec<PublicKey> { s.roots.clone() };
        assert_eq!(keys(&read), keys(&seed));
        assert_eq!(read.token.as_bytes(), seed.token.as_bytes());
    }
}
