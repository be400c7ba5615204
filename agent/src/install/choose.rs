//! Which disk to install on: the seed's rules, what the disks are, and what this installer did
//! before. Nothing is asked; what is not certain is refused, with every disk and its reason.

use super::content::Content;
use super::disks::{Disk, gb, word};
use holdfast_core::layout;
use holdfast_core::seed::{Bus, Choose, SeedInstall};
use holdfast_core::state::Installed;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Install on the disk of this place in the list; where earlier work goes on, with the GUID
    /// that its table was to get.
    Install(usize, Option<String>),
    /// Nothing: this installer's work is on the disk already, whole; which entry of its journal.
    Done(usize, usize),
    /// Nothing, and why, with a line for each disk.
    Refuse(Vec<String>),
}

/// Decides. `own` is the name of the disk that this system runs from.
pub fn choose(rules: &SeedInstall, disks: &[Disk], own: &str, journal: &[Installed]) -> Choice {
    let done = disks
        .iter()
        .enumerate()
        .find_map(|(i, disk)| match &disk.content {
            Ok(Content::Table { disk: guid, .. }) if disk.name != own => {
                let entry = journal.iter().rposition(|j| j.disk == *guid)?;
                Some(Choice::Done(i, entry))
            }
            _ => None,
        });
    if let Some(done) = done {
        return done;
    }
    let verdicts: Vec<Result<(), String>> = disks
        .iter()
        .map(|disk| fits(rules, disk, own, journal))
        .collect();
    let mut fitting: Vec<usize> = (0..disks.len()).filter(|i| verdicts[*i].is_ok()).collect();
    // Of equal ones always the same, whatever order the kernel found them in.
    fitting.sort_by_key(|i| (disks[*i].bytes, &disks[*i].serial, &disks[*i].name));
    let chosen = match (rules.choose, fitting.as_slice()) {
        (_, [only]) => Some(*only),
        (Choose::Only, _) => None,
        (Choose::Smallest, all) => all.first().copied(),
        (Choose::Largest, all) => all.last().copied(),
    };
    match chosen {
        Some(i) => Choice::Install(i, begun(&disks[i], journal).map(str::to_owned)),
        None => {
            let line = |(disk, verdict): (&Disk, &Result<(), String>)| match verdict {
                Ok(()) => format!("{disk} fits, and so does another"),
                Err(why) => format!("{disk} {why}"),
            };
            Choice::Refuse(disks.iter().zip(&verdicts).map(line).collect())
        }
    }
}

/// The GUID of work that this installer began on the disk.
fn begun<'d>(disk: &'d Disk, journal: &[Installed]) -> Option<&'d str> {
    match &disk.content {
        Ok(Content::Marked(guid)) => journal.iter().any(|j| j.disk == *guid).then_some(guid),
        _ => None,
    }
}

fn fits(rules: &SeedInstall, disk: &Disk, own: &str, journal: &[Installed]) -> Result<(), String> {
    if disk.name == own {
        return Err("is the disk that this system runs from".into());
    }
    if rules.bus.is_empty() && disk.bus == Bus::Usb {
        return Err("is attached by USB: only a seed whose bus names usb takes it".into());
    }
    if !rules.bus.is_empty() && !rules.bus.contains(&disk.bus) {
        let wanted: Vec<_> = rules.bus.iter().map(|b| word(*b)).collect();
        return Err(format!("is not attached by {}", wanted.join(" or ")));
    }
    if let Some(model) = &rules.model
        && !disk.model.to_lowercase().contains(&model.to_lowercase())
    {
        return Err(format!("is no model {model:?}"));
    }
    if let Some(serial) = &rules.serial
        && disk.serial != *serial
    {
        return Err(format!("has not the serial number {serial:?}"));
    }
    const GB: u64 = 1_000_000_000;
    if rules.min_gb.is_some_and(|min| disk.bytes / GB < min) {
        return Err("is smaller than the seed's min_gb".into());
    }
    if rules
        .max_gb
        .is_some_and(|max| disk.bytes > max.saturating_mul(GB))
    {
        return Err("is larger than the seed's max_gb".into());
    }
    if disk.read_only {
        return Err("takes no writes".into());
    }
    if !disk.holders.is_empty() {
        return Err(format!("is in use ({})", disk.holders.join(", ")));
    }
    if disk.block != 512 {
        return Err(format!(
            "has blocks of {} bytes; this version's volumes need 512 (many such disks can be switched to it by their maker's tool, NVMe ones by nvme format)",
            disk.block
        ));
    }
    let (_, least) = layout::plan(layout::VAR_MIN);
    if disk.bytes < least {
        return Err(format!(
            "is too small: {} GB are needed",
            gb(least + 99_999_999)
        ));
    }
    let data = match &disk.content {
        Err(why) => return Err(format!("cannot be read: {why}")),
        Ok(Content::Blank) => return Ok(()),
        Ok(Content::Marked(_)) if begun(disk, journal).is_some() => return Ok(()),
        Ok(Content::Marked(_)) => "an installation that another installer began".to_owned(),
        Ok(Content::Table { holdfast: true, .. }) => "a Holdfast installation".to_owned(),
        Ok(Content::Table { .. }) => "a partition table (GPT)".to_owned(),
        Ok(Content::Data(words)) => words.clone(),
    };
    if rules.erase {
        Ok(())
    } else {
        Err(format!(
            "holds data ({data}): it is erased only with erase = true in the seed's [install]"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(name: &str, bus: Bus, gb: u64, content: Content) -> Disk {
        Disk {
            name: name.into(),
            bus,
            model: "Model".into(),
            serial: format!("serial-{name}"),
            bytes: gb * 1_000_000_000,
            block: 512,
            read_only: false,
            holders: vec![],
            content: Ok(content),
        }
    }

    fn table(guid: &str) -> Content {
        Content::Table {
            disk: guid.into(),
            holdfast: true,
        }
    }

    fn journal(guid: &str) -> Vec<Installed> {
        vec![Installed {
            disk: guid.into(),
            name: "x".into(),
            done: false,
            retire: true,
            other: Default::default(),
        }]
    }

    fn refusal(rules: &SeedInstall, disks: &[Disk]) -> String {
        match choose(rules, disks, "sda", &[]) {
            Choice::Refuse(lines) => lines.join("\n"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_one_internal_disk_is_taken_and_neither_the_stick_nor_another() {
        let disks = [
            disk("sda", Bus::Usb, 16, table("stick")),
            disk("sdb", Bus::Usb, 64, Content::Blank),
            disk("nvme0n1", Bus::Nvme, 500, Content::Blank),
        ];
        let rules = SeedInstall::default();
        assert_eq!(choose(&rules, &disks, "sda", &[]), Choice::Install(2, None));
        let usb = SeedInstall {
            bus: vec![Bus::Usb],
            ..rules
        };
        assert_eq!(choose(&usb, &disks, "sda", &[]), Choice::Install(1, None));
        // Even one that may be erased, and is asked for by its serial, is not its own.
        let own = SeedInstall {
            serial: Some("serial-sda".into()),
            erase: true,
            bus: vec![Bus::Usb],
            ..Default::default()
        };
        assert!(refusal(&own, &disks).contains("runs from"));
    }

    #[test]
    fn each_reason_is_said() {
        let blank = |change: fn(&mut Disk)| {
            let mut one = disk("nvme0n1", Bus::Nvme, 500, Content::Blank);
            change(&mut one);
            [one]
        };
        let none = SeedInstall::default();
        for (change, words) in [
            ((|d| d.block = 4096) as fn(&mut Disk), "blocks of 4096"),
            (|d| d.bytes = 2_000_000_000, "too small"),
            (|d| d.read_only = true, "no writes"),
            (|d| d.holders = vec!["md0".into()], "in use (md0)"),
            (|d| d.bus = Bus::Usb, "USB"),
            (|d| d.content = Err("EIO".into()), "cannot be read: EIO"),
            (
                |d| d.content = Ok(Content::Data("ext file system".into())),
                "holds data (ext file system)",
            ),
            (|d| d.content = Ok(table("x")), "a Holdfast installation"),
            (
                |d| d.content = Ok(Content::Marked("x".into())),
                "another installer",
            ),
        ] {
            let text = refusal(&none, &blank(change));
            assert!(text.contains(words) && text.contains("nvme0n1 ("), "{text}");
        }
        let fine = blank(|_| {});
        for (rules, words) in [
            (
                SeedInstall {
                    bus: vec![Bus::Ata, Bus::Mmc],
                    ..none.clone()
                },
                "not attached by ata or mmc",
            ),
            (
                SeedInstall {
                    model: Some("other".into()),
                    ..none.clone()
                },
                "no model",
            ),
            (
                SeedInstall {
                    serial: Some("serial".into()),
                    ..none.clone()
                },
                "serial number",
            ),
            (
                SeedInstall {
                    min_gb: Some(501),
                    ..none.clone()
                },
                "min_gb",
            ),
            (
                SeedInstall {
                    max_gb: Some(499),
                    ..none.clone()
                },
                "max_gb",
            ),
        ] {
            let text = refusal(&rules, &fine);
            assert!(text.contains(words), "{text}");
        }
        let rules = SeedInstall {
            bus: vec![Bus::Nvme],
            model: Some("MODEL".into()),
            serial: Some("serial-nvme0n1".into()),
            min_gb: Some(500),
            max_gb: Some(500),
            ..none
        };
        assert_eq!(choose(&rules, &fine, "sda", &[]), Choice::Install(0, None));
        assert!(refusal(&rules, &[]).is_empty());
    }

    #[test]
    fn of_several_only_a_rule_chooses() {
        let disks = [
            disk("nvme1n1", Bus::Nvme, 500, Content::Blank),
            disk("nvme0n1", Bus::Nvme, 1000, Content::Blank),
        ];
        assert!(refusal(&SeedInstall::default(), &disks).contains("so does another"));
        let with = |choose| SeedInstall {
            choose,
            ..Default::default()
        };
        assert_eq!(
            choose(&with(Choose::Smallest), &disks, "sda", &[]),
            Choice::Install(0, None)
        );
        assert_eq!(
            choose(&with(Choose::Largest), &disks, "sda", &[]),
            Choice::Install(1, None)
        );
    }

    #[test]
    fn earlier_work_is_known_again() {
        let rules = SeedInstall::default();
        let half = [disk("nvme0n1", Bus::Nvme, 500, Content::Marked("g".into()))];
        assert_eq!(
            choose(&rules, &half, "sda", &journal("g")),
            Choice::Install(0, Some("g".into()))
        );
        let whole = [disk("nvme0n1", Bus::Nvme, 500, table("g"))];
        assert_eq!(
            choose(&rules, &whole, "sda", &journal("g")),
            Choice::Done(0, 0)
        );
        assert!(matches!(
            choose(&rules, &whole, "sda", &journal("h")),
            Choice::Refuse(_)
        ));
        // Nothing is whole on the disk that this system runs from but this system.
        assert!(matches!(
            choose(&rules, &whole, "nvme0n1", &journal("g")),
            Choice::Refuse(_)
        ));
    }

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            Just(Content::Blank),
            "[ab]".prop_map(Content::Marked),
            ("[ab]", any::<bool>()).prop_map(|(disk, holdfast)| Content::Table { disk, holdfast }),
            Just(Content::Data("ext".into())),
        ]
    }

    fn any_disk() -> impl Strategy<Value = Disk> {
        let bus = prop::sample::select(vec![
            Bus::Nvme,
            Bus::Ata,
            Bus::Scsi,
            Bus::Virtio,
            Bus::Mmc,
            Bus::Usb,
        ]);
        (bus, 1u64..9, any::<bool>(), any::<bool>(), content()).prop_map(
            |(bus, gb, ro, four_k, content)| Disk {
                read_only: ro && four_k,
                block: if four_k && !ro { 4096 } else { 512 },
                ..disk("x", bus, gb, content)
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_may_be_erased(
            mut disks in prop::collection::vec(any_disk(), 0..5),
            own in 0usize..5, erase: bool, usb: bool,
            choose_rule in prop::sample::select(vec![Choose::Only, Choose::Smallest, Choose::Largest]),
            known in "[abc]",
        ) {
            for (i, disk) in disks.iter_mut().enumerate() {
                disk.name = format!("d{i}");
            }
            let rules = SeedInstall { erase, choose: choose_rule, bus: if usb { vec![Bus::Usb] } else { vec![] }, ..Default::default() };
            let own = format!("d{own}");
            match choose(&rules, &disks, &own, &journal(&known)) {
                Choice::Install(i, resumed) => {
                    let disk = &disks[i];
                    prop_assert!(disk.name != own && !disk.read_only && disk.block == 512);
                    prop_assert_eq!(disk.bus == Bus::Usb, usb);
                    let mine = disk.content == Ok(Content::Marked(known.clone()));
                    prop_assert_eq!(resumed.is_some(), mine);
                    prop_assert!(erase || mine || disk.content == Ok(Content::Blank));
                    // Its own finished work is never written over.
                    let done = Ok(Content::Table { disk: known.clone(), holdfast: true });
                    prop_assert!(disks.iter().all(|d| d.name == own || d.content != done));
                }
                Choice::Done(i, _) => prop_assert!(disks[i].name != own),
                Choice::Refuse(lines) => prop_assert_eq!(lines.len(), disks.len()),
            }
        }
    }
}
