//! Unified kernel images: sections added to the systemd stub (UAPI group, "Unified Kernel Image";
//! Microsoft PE format for the offsets).

use crate::error::{Error, Result};

const SECTION_HEADER: usize = 40;
/// Initialised data, readable.
const READ_ONLY_DATA: u32 = 0x4000_0040;

/// Appends `sections` (name of at most 8 bytes, content) to the PE file `stub`.
///
/// # Errors
/// When the stub is no 64-bit PE file or its header has no room.
pub(crate) fn assemble(stub: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let bad = |reason: &str| Error::build("UKI stub", reason);
    let u32_at = |bytes: &[u8], at: usize| -> Result<usize> {
        let four = bytes
            .get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .ok_or_else(|| bad("truncated"))?;
        Ok(u32::from_le_bytes(four) as usize)
    };
    let u16_at = |bytes: &[u8], at: usize| -> Result<usize> {
        let two = bytes
            .get(at..at + 2)
            .and_then(|b| b.try_into().ok())
            .ok_or_else(|| bad("truncated"))?;
        Ok(usize::from(u16::from_le_bytes(two)))
    };
    let pe = u32_at(stub, 0x3c)?;
    if !stub.starts_with(b"MZ") || stub.get(pe..pe + 4) != Some(b"PE\0\0") {
        return Err(bad("is no PE file"));
    }
    let (coff, optional) = (pe + 4, pe + 24);
    if u16_at(stub, optional)? != 0x20b {
        return Err(bad("is no 64-bit PE file"));
    }
    let count = u16_at(stub, coff + 2)?;
    let table = optional + u16_at(stub, coff + 16)?;
    let (section_align, file_align) = (u32_at(stub, optional + 32)?, u32_at(stub, optional + 36)?);
    let headers_len = u32_at(stub, optional + 60)?;
    let new_table_end = table + (count + sections.len()) * SECTION_HEADER;
    if section_align == 0 || file_align == 0 || new_table_end > headers_len {
        return Err(bad("has no room for more sections"));
    }
    let mut next_address = 0;
    for i in 0..count {
        let header = table + i * SECTION_HEADER;
        let end = u32_at(stub, header + 12)? + u32_at(stub, header + 8)?;
        next_address = next_address.max(end.next_multiple_of(section_align));
    }
    let mut out = stub.to_vec();
    for (i, (name, content)) in sections.iter().enumerate() {
        out.resize(out.len().next_multiple_of(file_align), 0);
        let raw = out.len();
        let raw_len = content.len().next_multiple_of(file_align);
        let mut header = [0; SECTION_HEADER];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let fields = [
            (8, content.len()),
            (12, next_address),
            (16, raw_len),
            (20, raw),
        ];
        for (at, value) in fields {
            let value = u32::try_from(value)
                .map_err(|_| bad("together with its sections exceeds 4 GiB"))?;
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        header[36..40].copy_from_slice(&READ_ONLY_DATA.to_le_bytes());
        let at = table + (count + i) * SECTION_HEADER;
        out[at..at + SECTION_HEADER].copy_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(raw + raw_len, 0);
        next_address += content.len().next_multiple_of(section_align);
    }
    let total = (count + sections.len()) as u16;
    out[coff + 2..coff + 4].copy_from_slice(&total.to_le_bytes());
    out[optional + 56..optional + 60].copy_from_slice(&(next_address as u32).to_le_bytes());
    // No checksum: firmware does not look at it outside of drivers.
    out[optional + 64..optional + 68].fill(0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PE header with one section and room for more.
    fn stub() -> Vec<u8> {
        let mut pe = vec![0; 0x800];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x80;
        pe[0x80..0x84].copy_from_slice(b"PE\0\0");
        pe[0x86] = 1; // sections
        pe[0x94] = 240; // optional header's length
        let optional = 0x98;
        pe[optional..optional + 2].copy_from_slice(&0x20bu16.to_le_bytes());
        for (at, value) in [(32, 0x1000u32), (36, 0x200), (60, 0x400)] {
            pe[optional + at..optional + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let section = optional + 240;
        pe[section..section + 5].copy_from_slice(b".text");
        for (at, value) in [(8, 0x123u32), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            pe[section + at..section + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        pe
    }

    #[test]
    fn sections_are_found_where_the_headers_say() {
        let uki = assemble(&stub(), &[(".cmdline", b"quiet"), (".linux", &[9; 5000])]).unwrap();
        assert_eq!(uki[0x86], 3);
        let table = 0x98 + 240;
        let field = |n: usize, at: usize| {
            let from = table + n * 40 + at;
            u32::from_le_bytes(uki[from..from + 4].try_into().unwrap()) as usize
        };
        assert_eq!((field(1, 8), field(1, 12)), (5, 0x2000));
        assert_eq!(&uki[field(1, 20)..field(1, 20) + 5], b"quiet");
        assert_eq!((field(2, 8), field(2, 12)), (5000, 0x3000));
        assert!(
            uki[field(2, 20)..field(2, 20) + 5000]
                .iter()
                .all(|b| *b == 9)
        );
        let size = u32::from_le_bytes(uki[0x98 + 56..0x98 + 60].try_into().unwrap());
        assert_eq!(size, 0x5000);
        assert_eq!(uki.len() % 0x200, 0);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(assemble(b"hello", &[]).is_err());
        let many: Vec<(&str, &[u8])> = vec![(".x", &[]); 20];
        assert!(
            assemble(&stub(), &many)
                .unwrap_err()
                .to_string()
                .contains("room")
        );
    }
}
