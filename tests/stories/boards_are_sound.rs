//! Every board's image, looked at with tools that are not ours: partition tables, FAT volumes, UKIs,
//! qcow2.

use anyhow::{Context as _, Result, ensure};
use holdfast_core::header::SlotHeader;
use holdfast_core::layout::{self, Role};
use holdfast_core::slots::Slot;
use holdfast_tests::{Lab, Story, command};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every board in `boards/`.
fn boards() -> Result<Vec<String>> {
    let folder = command::top().join("boards");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let toml = path.extension()? == "toml";
            toml.then(|| path.file_stem()?.to_str().map(str::to_owned))?
        })
        .collect();
    names.sort();
    ensure!(names.len() >= 5, "boards are missing: {names:?}");
    Ok(names)
}

/// Runs a tool; its output when it finds no fault.
fn tool(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program}: make setup installs it"))?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(output.status.success(), "{program} {args:?}: {said}");
    Ok(said)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// A partition of the raw image as a file.
fn partition(image: &Path, role: Role, to: PathBuf) -> Result<PathBuf> {
    use std::os::unix::fs::FileExt as _;
    let (extents, _) = layout::plan(layout::VAR_MIN);
    let extent = extents
        .iter()
        .find(|e| e.role == role)
        .context("no such partition")?;
    let mut bytes = vec![0; usize::try_from(extent.len)?];
    std::fs::File::open(image)?.read_exact_at(&mut bytes, extent.offset)?;
    std::fs::write(&to, bytes)?;
    Ok(to)
}

/// The UKI as the loader decodes it.
fn uki(image: &Path, dir: &Path) -> Result<PathBuf> {
    let boot = std::fs::read(partition(image, Role::Boot(Slot::A), dir.join("boot"))?)?;
    let block = boot[..4096].try_into().context("no header")?;
    // Who signed is for the loader to judge; here the lengths count.
    let header = SlotHeader::parse(&block)?;
    let from = usize::try_from(layout::PAYLOAD_OFFSET)?;
    let stored = &boot[from..from + usize::try_from(header.stored_len)?];
    let decoded = match header.decoded_len == header.stored_len {
        true => stored.to_vec(),
        false => zstd::decode_all(stored)?,
    };
    ensure!(decoded.len() as u64 == header.decoded_len);
    let path = dir.join("uki.efi");
    std::fs::write(&path, decoded)?;
    Ok(path)
}

/// What tools say of one board.
fn look(lab: &Lab, board: &str) -> Result<()> {
    let built = lab.build_board(board, "base", "1.0.0", &["--formats", "raw,qcow2,bundle"])?;
    let image = &built.image;
    let said = tool("sgdisk", &["-v", text(image)])?;
    ensure!(said.contains("No problems found"), "{said}");
    let said = tool("qemu-img", &["check", text(&image.with_extension("qcow2"))])?;
    ensure!(said.contains("No errors were found"), "{said}");
    let dir = lab.dir().join(board);
    std::fs::create_dir_all(&dir)?;
    for role in [Role::Esp, Role::Seed] {
        let volume = partition(image, role, dir.join(role.name()))?;
        tool("fsck.vfat", &["-n", text(&volume)])?;
    }
    let files = tool("mdir", &["-i", text(&dir.join("esp")), "-b", "-/", "::"])?;
    let arm = board != "x86-64" && board != "proxmox";
    let loader = if arm { "BOOTAA64.EFI" } else { "BOOTX64.EFI" };
    ensure!(files.contains(&format!("::/EFI/BOOT/{loader}")), "{files}");
    let pi = board.starts_with("rpi");
    for file in ["config.txt", "u-boot.bin", "uboot.env"] {
        ensure!(
            files.contains(&format!("::/{file}")) == pi,
            "{board}: {files}"
        );
    }
    let objdump = if arm {
        "aarch64-linux-gnu-objdump"
    } else {
        "objdump"
    };
    let sections = tool(objdump, &["-h", text(&uki(image, &dir)?)])?;
    for section in [".osrel", ".uname", ".cmdline", ".initrd", ".linux"] {
        ensure!(
            sections.contains(section),
            "{board}: no {section}: {sections}"
        );
    }
    ensure!(sections.contains(".dtbauto") == pi, "{board}: {sections}");
    ensure!(
        sections.contains(".ucode") == (board == "x86-64"),
        "{board}"
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

#[test]
fn other_tools_find_no_fault() -> Story {
    let lab = Lab::new("boards_are_sound")?;
    for board in boards()? {
        look(&lab, &board).context(board)?;
    }
    Ok(())
}
