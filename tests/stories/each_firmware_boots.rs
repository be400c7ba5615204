//! One boot for each kind of firmware besides the one of all other stories: a PC with NVMe (OVMF),
//! 64-bit Arm with UEFI (AAVMF), a Raspberry Pi with U-Boot from its card. Seed, verity root, mesh.

use anyhow::{Context as _, ensure};
use holdfast_tests::emulated::{BOOT, EMULATED, Emulated};
use holdfast_tests::{Lab, Story};

fn boots(board: &Emulated) -> Story {
    let lab = Lab::new(&format!("each_firmware_boots_{}", board.board))?;
    let image = board.build(&lab, "base", "1.0.0")?;
    let mut node = board.node(&lab, "n1", &image)?;
    let machine = &mut node.machine;
    machine.power_on()?;
    let start = format!("slot a: {} 1.0.0, generation 1", board.board);
    machine.wait_for(&start, BOOT)?;
    machine.wait_for("verity root mounted", BOOT)?;
    machine.wait_for("agent started", BOOT)?;
    if board.network {
        machine.wait_for("holdfast: mesh up", BOOT)?;
        let view = node.wait_online()?;
        ensure!(view.text("version") == "1.0.0", "{view:?}");
    }
    Ok(())
}

#[test]
fn from_power_on_to_the_mesh() -> Story {
    for board in EMULATED.iter().filter(|b| b.board != "proxmox") {
        boots(board).context(board.board)?;
    }
    Ok(())
}
