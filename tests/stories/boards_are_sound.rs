//! Every board's image, looked at with tools that are not ours: partition tables, FAT volumes, UKIs,
//! qcow2; and whether the modules in its initramfs have what they need with them.

use anyhow::{Context as _, Result, ensure};
use holdfast_core::header::SlotHeader;
use holdfast_core::layout::{self, Role};
use holdfast_core::slots::Slot;
use holdfast_tests::{Lab, Story, command};
use std::collections::BTreeMap;
use std::io::Read as _;
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
    ensure!(names.len() >= 6, "boards are missing: {names:?}");
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

/// What a Raspberry Pi's board brings for its machines.
struct Pi {
    board: &'static str,
    /// Device trees that the firmware looks for on the ESP.
    trees: &'static [&'static str],
    /// How many are in the UKI.
    in_uki: usize,
    /// Drivers of card, network and USB.
    modules: &'static [&'static str],
}

const PIS: [Pi; 3] = [
    Pi {
        board: "rpi3",
        trees: &["bcm2837-rpi-3-b.dtb", "bcm2837-rpi-zero-2-w.dtb"],
        in_uki: 5,
        modules: &["bcm2835", "sdhci-iproc", "dwc2", "smsc95xx", "bcm2835_wdt"],
    },
    Pi {
        board: "rpi4",
        trees: &["bcm2711-rpi-4-b.dtb"],
        in_uki: 3,
        modules: &["sdhci-iproc", "genet", "xhci-pci", "bcm2835_wdt"],
    },
    // The firmware's tree is the only one that is right: one for each stepping, both of one name.
    Pi {
        board: "rpi5",
        trees: &["bcm2712-rpi-5-b.dtb", "bcm2712-d-rpi-5-b.dtb"],
        in_uki: 0,
        modules: &[
            "sdhci-brcmstb",
            "pinctrl-brcmstb-bcm2712",
            "irq-bcm2712-mip",
            "rp1_pci",
            "clk-rp1",
            "pinctrl-rp1",
            "macb",
            "dwc3",
            "xhci-plat-hcd",
            "bcm2835_wdt",
        ],
    },
];

/// The files of archives of the kernel's format `newc`, one after another (Linux
/// `Documentation/driver-api/early-userspace/buffer-format.rst`).
fn unpacked(mut rest: &[u8]) -> Result<BTreeMap<String, &[u8]>> {
    let mut files = BTreeMap::new();
    while let Some(at) = rest.iter().position(|b| *b != 0) {
        rest = &rest[at..];
        ensure!(rest.starts_with(b"070701"), "no newc archive");
        let field = |n: usize| -> Result<usize> {
            let hex = std::str::from_utf8(&rest[6 + 8 * n..14 + 8 * n])?;
            Ok(usize::from_str_radix(hex, 16)?)
        };
        let (len, name_len) = (field(6)?, field(11)?);
        let name = std::str::from_utf8(&rest[110..110 + name_len - 1])?;
        let data = (110 + name_len).next_multiple_of(4);
        files.insert(name.to_owned(), &rest[data..data + len]);
        rest = &rest[(data + len).next_multiple_of(4)..];
    }
    Ok(files)
}

/// The initramfs's modules by name (with `_`), each with those it needs.
fn boot_modules(initramfs: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let bytes = std::fs::read(initramfs)?;
    let (mut rest, mut archives) = (&bytes[..], Vec::new());
    // Frames of zstd with zeros between them.
    while let Some(at) = rest.iter().position(|b| *b != 0) {
        rest = &rest[at..];
        zstd::Decoder::with_buffer(&mut rest)?
            .single_frame()
            .read_to_end(&mut archives)?;
    }
    let depends = |elf: &[u8]| -> Vec<String> {
        elf.split(|b| *b == 0)
            .filter_map(|word| word.strip_prefix(b"depends="))
            .flat_map(|list| list.split(|b| *b == b','))
            .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
            .filter(|name| !name.is_empty())
            .collect()
    };
    Ok(unpacked(&archives)?
        .into_iter()
        .filter_map(|(path, elf)| {
            let name = path.rsplit('/').next()?.strip_suffix(".ko")?;
            Some((name.replace('-', "_"), depends(elf)))
        })
        .collect())
}

/// The modules of a UKI have what they need beside them, and are those that the board is started with.
fn look_at_modules(objcopy: &str, uki: &Path, pi: Option<&Pi>) -> Result<()> {
    let initrd = uki.with_file_name("initrd");
    let only = format!(".initrd={}", text(&initrd));
    let rest = uki.with_file_name("rest");
    tool(
        objcopy,
        &[
            "-O",
            "binary",
            "--dump-section",
            &only,
            text(uki),
            text(&rest),
        ],
    )?;
    let modules = boot_modules(&initrd)?;
    ensure!(modules.contains_key("dm_verity"), "{modules:?}");
    for (name, needs) in &modules {
        for needed in needs {
            ensure!(
                modules.contains_key(needed),
                "{name} needs {needed}, which is not there"
            );
        }
    }
    for name in pi.map(|pi| pi.modules).unwrap_or_default() {
        ensure!(
            modules.contains_key(&name.replace('-', "_")),
            "no {name}: {modules:?}"
        );
    }
    Ok(())
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
    let of_pi = PIS.iter().find(|pi| pi.board == board);
    let pi = of_pi.is_some();
    ensure!(pi == board.starts_with("rpi"), "{board} is not in the list");
    for file in ["config.txt", "u-boot.bin", "uboot.env"] {
        ensure!(
            files.contains(&format!("::/{file}")) == pi,
            "{board}: {files}"
        );
    }
    for tree in of_pi.map(|pi| pi.trees).unwrap_or_default() {
        ensure!(files.contains(&format!("::/{tree}")), "{board}: {files}");
    }
    let prefix = if arm { "aarch64-linux-gnu-" } else { "" };
    let uki = uki(image, &dir)?;
    let sections = tool(&format!("{prefix}objdump"), &["-h", text(&uki)])?;
    for section in [".osrel", ".uname", ".cmdline", ".initrd", ".linux"] {
        ensure!(
            sections.contains(section),
            "{board}: no {section}: {sections}"
        );
    }
    ensure!(
        sections.matches(".dtbauto").count() == of_pi.map_or(0, |pi| pi.in_uki),
        "{board}: {sections}"
    );
    ensure!(
        sections.contains(".ucode") == (board == "x86-64"),
        "{board}"
    );
    look_at_modules(&format!("{prefix}objcopy"), &uki, of_pi)?;
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
