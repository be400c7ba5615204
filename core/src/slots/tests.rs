//! One check a rule; the interleavings are in `model`.

use super::*;

const DIGEST: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn boot(record: &mut Record, n: u8) -> Start {
    record.choose_start([n; 16], Excluded::default()).unwrap()
}

/// Slot A good and running, slot B on trial.
fn upgrading(tries: u8) -> Record {
    let mut r = Record::factory(DIGEST, 1);
    boot(&mut r, 1);
    r.quiet(&[1; 16]).unwrap();
    r.begin_write(&[1; 16], Slot::B).unwrap();
    r.install(&[1; 16], Slot::B, NEW, 2, tries).unwrap();
    r
}

#[test]
fn a_record_reads_back_and_keeps_what_it_does_not_know() {
    let mut block = upgrading(3).encode();
    block[60] = 0x5a;
    block[2000] = 0xa5;
    block[51] |= 0x80;
    crate::bytes::seal(&mut block);
    let mut read = Record::decode(&block).unwrap();
    assert_eq!(read.slot(Slot::B).state, State::Trial);
    read.request_rescue();
    let again = read.encode();
    assert_eq!((again[60], again[2000], again[51]), (0x5a, 0xa5, 0x81));
}

#[test]
fn other_blocks_are_refused_by_name() {
    assert_eq!(Record::decode(&[0; BLOCK]), Err(RecordError::Absent));
    assert_eq!(Record::decode(&[]), Err(RecordError::Absent));
    let mut block = Record::factory(DIGEST, 1).encode();
    block[100] ^= 1;
    assert_eq!(Record::decode(&block), Err(RecordError::Damaged));
    block[8] = 2;
    crate::bytes::seal(&mut block);
    assert_eq!(Record::decode(&block), Err(RecordError::Version(2)));
}

#[test]
fn a_trial_commits_and_is_preferred() {
    let mut r = upgrading(3);
    let start = boot(&mut r, 2);
    assert_eq!(
        (start.target, start.attempt, start.tries_left),
        (Target::Slot(Slot::B), 1, 2)
    );
    assert_eq!(r.previous(), Some(Target::Slot(Slot::A)));
    assert_eq!(r.commit(&[2; 16], &DIGEST), Err(VerbError::Digest(Slot::B)));
    assert_eq!(r.commit(&[1; 16], &NEW), Err(VerbError::OtherBoot));
    assert_eq!(r.commit(&[2; 16], &NEW), Ok(true));
    assert_eq!(r.commit(&[2; 16], &NEW), Ok(false));
    assert_eq!(boot(&mut r, 3).why, Code::PREFERRED);
    assert_eq!(r.preferred(), Slot::B);
}

#[test]
fn a_trial_ends_when_its_tries_do() {
    let mut r = upgrading(2);
    for n in 2..4 {
        assert_eq!(boot(&mut r, n).target, Target::Slot(Slot::B));
    }
    assert_eq!(boot(&mut r, 4).target, Target::Slot(Slot::A));
    assert_eq!(r.slot(Slot::B).state, State::Bad);
    assert_eq!(r.slot(Slot::B).reason.code, Code::TRIES_USED_UP);
}

#[test]
fn a_failed_trial_goes_back_with_its_reason() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.fail_trial(&[2; 16], "no handshake in 300 s").unwrap();
    assert_eq!(boot(&mut r, 3).target, Target::Slot(Slot::A));
    assert_eq!(
        r.slot(Slot::B).reason.to_string(),
        "the trial failed: no handshake in 300 s"
    );
    assert!(r.fail_trial(&[3; 16], "").is_err());
}

#[test]
fn a_trial_that_does_not_verify_is_over_a_good_slot_is_not() {
    let mut r = upgrading(3);
    let first = boot(&mut r, 2);
    let mut out = Excluded::default();
    out.add(first.target);
    r.start_failed(first.target, "payload digest");
    let second = r.choose_start([2; 16], out).unwrap();
    assert_eq!(
        (r.slot(Slot::B).state, second.target),
        (State::Bad, Target::Slot(Slot::A))
    );
    out.add(second.target);
    r.start_failed(second.target, "payload digest");
    assert_eq!(r.slot(Slot::A).state, State::Good);
    let third = r.choose_start([2; 16], out).unwrap();
    assert_eq!(third.target, Target::Rescue);
    assert_eq!(r.previous(), Some(Target::Slot(Slot::A)));
    out.add(third.target);
    assert_eq!(r.choose_start([2; 16], out), None);
    assert_eq!(boot(&mut r, 3).target, Target::Slot(Slot::A));
}

#[test]
fn three_uncleared_starts_lead_to_the_other_then_rescue_then_again() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.commit(&[2; 16], &NEW).unwrap();
    let targets: Vec<_> = (3..=14).map(|n| boot(&mut r, n).target.name()).collect();
    assert_eq!(
        targets,
        [
            "b", "b", "b", "a", "a", "a", "rescue", "rescue", "rescue", "b", "a", "rescue"
        ]
    );
    assert_eq!(r.slot(Slot::B).reason.code, Code::DOES_NOT_STAY_UP);
}

#[test]
fn the_stand_in_becomes_preferred_once_it_stays_up() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.commit(&[2; 16], &NEW).unwrap();
    (3..=5).for_each(|n| {
        boot(&mut r, n);
    });
    assert_eq!(boot(&mut r, 6).why, Code::OTHER_GOOD);
    assert_eq!(r.quiet(&[6; 16]), Ok(true));
    assert_eq!(r.quiet(&[6; 16]), Ok(false));
    assert_eq!(r.preferred(), Slot::A);
    assert_eq!(boot(&mut r, 7).why, Code::PREFERRED);
}

#[test]
fn a_slow_death_after_the_commit_leads_back_too() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.commit(&[2; 16], &NEW).unwrap();
    // It stays up for minutes, each time.
    for n in 3..=5 {
        assert_eq!(boot(&mut r, n).target, Target::Slot(Slot::B));
        r.quiet(&[n; 16]).unwrap();
    }
    assert_eq!(boot(&mut r, 6).why, Code::OTHER_GOOD);
    let reason = std::format!("{}", r.slot(Slot::B).reason);
    assert!(reason.ends_with("stage up: it did not last"), "{reason}");
}

#[test]
fn an_hour_or_an_orderly_end_is_no_slow_death() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.commit(&[2; 16], &NEW).unwrap();
    for n in 3..=9 {
        assert_eq!(boot(&mut r, n).target, Target::Slot(Slot::B));
        assert!(r.stopped(&[n; 16]).unwrap());
    }
    boot(&mut r, 10);
    assert!(r.settled(&[10; 16]).unwrap());
    assert!(!r.slot(Slot::B).probation);
    assert_eq!(r.settled(&[10; 16]), Ok(false));
    // From now on minutes do.
    for n in 11..=19 {
        assert_eq!(boot(&mut r, n).target, Target::Slot(Slot::B));
        r.quiet(&[n; 16]).unwrap();
    }
}

#[test]
fn the_reason_names_the_stage_where_a_trial_ended() {
    for (stage, words) in [
        (None, "stage kernel: init did not start, or found no disk"),
        (Some(Stage::ROOT), "stage root: the agent did not speak"),
        (Some(Stage(40)), "stage unknown: a later stage"),
    ] {
        let mut r = upgrading(1);
        boot(&mut r, 2);
        if let Some(stage) = stage {
            assert_eq!(r.reached(&[2; 16], stage), Ok(true));
            assert_eq!(r.reached(&[2; 16], Stage::INIT), Ok(false), "never back");
        }
        boot(&mut r, 3);
        let reason = std::format!("{}", r.slot(Slot::B).reason);
        assert!(reason.ends_with(words), "{reason}");
    }
}

#[test]
fn a_usual_start_of_a_good_slot_writes_no_stages() {
    let mut r = Record::factory(DIGEST, 1);
    boot(&mut r, 1);
    assert_eq!(r.reached(&[1; 16], Stage::INIT), Ok(false));
    boot(&mut r, 2);
    assert_eq!(r.reached(&[2; 16], Stage::INIT), Ok(true));
    assert_eq!(r.reached(&[1; 16], Stage::ROOT), Err(VerbError::OtherBoot));
}

#[test]
fn a_slot_that_gives_itself_up_comes_back_after_the_others() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.commit(&[2; 16], &NEW).unwrap();
    r.give_up(&[2; 16], "its root rots").unwrap();
    assert_eq!(boot(&mut r, 3).target, Target::Slot(Slot::A));
    let reason = std::format!("{}", r.slot(Slot::B).reason);
    assert_eq!(reason, "gave itself up: its root rots");
    // An end in order on the way out takes nothing back; without another good one nobody gives up.
    assert_eq!(
        r.give_up(&[3; 16], "so does this"),
        Err(VerbError::OtherNotGood(Slot::B))
    );
    for n in 4..=5 {
        boot(&mut r, n);
    }
    assert_eq!(boot(&mut r, 6).target, Target::Rescue);
    r.leave_rescue();
    assert_eq!(boot(&mut r, 7).why, Code::TRIED_AGAIN);
}

#[test]
fn what_gave_itself_up_stays_given_up() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.commit(&[2; 16], &NEW).unwrap();
    r.give_up(&[2; 16], "its root rots").unwrap();
    assert_eq!(r.stopped(&[2; 16]), Ok(false));
    assert_eq!(r.quiet(&[2; 16]), Ok(false));
    assert_eq!(boot(&mut r, 3).target, Target::Slot(Slot::A));
}

#[test]
fn probation_is_for_those_who_have_something_to_go_back_to() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    r.commit(&[2; 16], &NEW).unwrap();
    r.begin_write(&[2; 16], Slot::A).unwrap();
    for n in 3..=9 {
        assert_eq!(boot(&mut r, n).target, Target::Slot(Slot::B));
        assert!(r.quiet(&[n; 16]).unwrap());
    }
}

#[test]
fn what_is_not_on_probation_settles_nothing() {
    let mut r = Record::factory(DIGEST, 1);
    boot(&mut r, 1);
    assert_eq!(r.settled(&[1; 16]), Ok(false));
    assert_eq!(r.slot(Slot::A).starts, 1);
}

#[test]
fn rescue_on_request_once_and_out_again() {
    let mut r = Record::factory(DIGEST, 1);
    r.request_rescue();
    assert_eq!(boot(&mut r, 1).why, Code::RESCUE_REQUESTED);
    assert_eq!(boot(&mut r, 2).target, Target::Slot(Slot::A));
    (3..=4).for_each(|n| {
        boot(&mut r, n);
    });
    assert_eq!(boot(&mut r, 5).target, Target::Rescue);
    r.leave_rescue();
    assert_eq!(boot(&mut r, 6).why, Code::TRIED_AGAIN);
    assert_eq!(boot(&mut r, 7).target, Target::Rescue);
}

#[test]
fn writing_never_touches_what_runs_or_is_gone_back_to() {
    let mut r = upgrading(3);
    assert_eq!(
        r.begin_write(&[1; 16], Slot::A),
        Err(VerbError::Running(Slot::A))
    );
    boot(&mut r, 2);
    assert_eq!(
        r.begin_write(&[2; 16], Slot::A),
        Err(VerbError::LastGood(Slot::A))
    );
    assert_eq!(
        r.begin_write(&[2; 16], Slot::B),
        Err(VerbError::Running(Slot::B))
    );
    // A record of before, because the newer copy rotted, does not say what runs now.
    assert_eq!(r.begin_write(&[1; 16], Slot::B), Err(VerbError::OtherBoot));
    assert_eq!(
        r.mark_bad(&[2; 16], Slot::A, ""),
        Err(VerbError::LastGood(Slot::A))
    );
    assert_eq!(
        r.try_slot(&[2; 16], Slot::A, 1),
        Err(VerbError::OtherNotGood(Slot::B))
    );
    r.commit(&[2; 16], &NEW).unwrap();
    r.begin_write(&[2; 16], Slot::A).unwrap();
    assert_eq!(
        r.install(&[2; 16], Slot::A, DIGEST, 3, 0),
        Err(VerbError::NoTries)
    );
    r.install(&[2; 16], Slot::A, DIGEST, 3, 1).unwrap();
    assert!(matches!(
        r.install(&[2; 16], Slot::A, DIGEST, 3, 1),
        Err(VerbError::State { .. })
    ));
}

#[test]
fn rollback_is_a_trial_of_the_other_slot() {
    let mut r = upgrading(3);
    boot(&mut r, 2);
    assert_eq!(
        r.rollback(&[2; 16], 2),
        Err(VerbError::OtherNotGood(Slot::B))
    );
    r.commit(&[2; 16], &NEW).unwrap();
    assert_eq!(r.rollback(&[2; 16], 2), Ok(Slot::A));
    let start = boot(&mut r, 3);
    assert_eq!((start.target, start.trial), (Target::Slot(Slot::A), true));
    r.fail_trial(&[3; 16], "").unwrap();
    assert_eq!(boot(&mut r, 4).target, Target::Slot(Slot::B));
}

#[test]
fn a_lost_record_is_rebuilt_newest_first_and_never_dead() {
    let mut r = Record::rebuild([Some((DIGEST, 1)), Some((NEW, 2))]);
    let targets: Vec<_> = (1..=8).map(|n| boot(&mut r, n).target.name()).collect();
    assert_eq!(
        targets,
        ["b", "a", "rescue", "rescue", "rescue", "b", "a", "rescue"]
    );
    let mut empty = Record::rebuild([None, None]);
    assert_eq!(boot(&mut empty, 1).target, Target::Rescue);
}

#[test]
fn what_failed_writes_left_on_the_disk_is_older_than_the_next_write() {
    let mut copies = Copies::fresh(upgrading(3));
    let mut failed = copies.clone();
    failed.record_mut().request_rescue();
    // Told as failed, both are on the disk all the same.
    let (_, a) = failed.next_write();
    let (_, b) = failed.next_write();
    copies.outrun(&failed);
    let (at, block) = copies.next_write();
    assert_eq!(at, crate::layout::RECORD_COPIES[0]);
    let (read, _) = Copies::read([&block, &b]).unwrap();
    assert!(!read.record().rescue_requested() && a != block);
}

#[test]
fn the_older_copy_is_written_and_the_newer_read() {
    let mut copies = Copies::fresh(Record::factory(DIGEST, 1));
    let (at0, a) = copies.next_write();
    let (at1, b) = copies.next_write();
    assert_eq!([at0, at1], crate::layout::RECORD_COPIES);
    let (mut read, states) = Copies::read([&a, &b]).unwrap();
    assert_eq!((read.record().seq(), states), (2, [Ok(1), Ok(2)]));
    assert_eq!(read.next_write().0, at0);
    let (mut one, states) = Copies::read([&a, &[]]).unwrap();
    assert_eq!(
        (one.record().seq(), states[1]),
        (1, Err(RecordError::Absent))
    );
    assert_eq!(one.next_write().0, at1);
    assert_eq!(
        Copies::read([&[], &[]]).unwrap_err(),
        [RecordError::Absent; 2]
    );
}

#[test]
fn a_retired_disk_starts_nothing_once_its_headers_are_cleared() {
    let mut record = Record::factory([1; 32], 1);
    record.choose_start([1; 16], Excluded::default()).unwrap();
    assert_eq!(record.retire(&[9; 16]), Err(VerbError::OtherBoot));
    record.request_rescue();
    assert_eq!(record.retire(&[1; 16]), Ok(true));
    assert_eq!(record.retire(&[1; 16]), Ok(false));
    assert!(
        Slot::BOTH
            .iter()
            .all(|s| record.slot(*s).state == State::Empty)
    );
    // However often it is asked: only rescue, whose header the caller clears, is ever tried.
    for boot in 2..20 {
        let mut excluded = Excluded::default();
        while let Some(start) = record.choose_start([boot; 16], excluded) {
            assert_eq!(start.target, Target::Rescue);
            excluded.add(start.target);
        }
        record.leave_rescue();
    }
}

#[test]
fn a_fresh_partition_has_both_copies_of_record_and_release_list() {
    use crate::layout::{RECORD_COPIES, RELEASE_COPIES};
    let list = [7; BLOCK];
    let out = fresh_partition(Record::factory([1; 32], 5), &list);
    let block = |at: u64| &out[at as usize..][..BLOCK];
    let (copies, states) = Copies::read(RECORD_COPIES.map(block)).unwrap();
    assert!(states.iter().all(Result::is_ok), "{states:?}");
    assert_eq!(copies.record().slot(Slot::A).digest, [1; 32]);
    assert!(RELEASE_COPIES.into_iter().all(|at| block(at) == list));
}

#[test]
fn a_watchdog_that_nobody_feeds_is_armed_no_more() {
    let mut r = Record::factory(DIGEST, 1);
    let start = boot(&mut r, 1);
    assert!(r.arms_watchdog(&start));
    assert_eq!(r.note_watchdog(&[2; 16], true), Err(VerbError::OtherBoot));
    assert_eq!(r.note_watchdog(&[1; 16], true), Ok(true));
    assert_eq!(r.note_watchdog(&[1; 16], true), Ok(false));
    r.request_rescue();
    // In a byte that older loaders leave as it is, beside their own flag.
    let block = r.encode();
    assert_eq!(block[51], 3);
    let mut r = Record::decode(&block).unwrap();
    let start = boot(&mut r, 2);
    assert_eq!(start.target, Target::Rescue);
    assert!(r.watchdog_unfed() && !r.arms_watchdog(&start));
    assert_eq!(r.note_watchdog(&[2; 16], false), Ok(true));
    assert!(r.arms_watchdog(&start) && r.encode()[51] == 0);
}

#[test]
fn a_watchdog_that_ends_every_start_does_not_keep_rescue_away() {
    let mut r = Record::factory(DIGEST, 1);
    let armed: Vec<_> = (1..=7)
        .map(|n| {
            let start = boot(&mut r, n);
            (start.target, r.arms_watchdog(&start))
        })
        .collect();
    let (a, rescue) = (Target::Slot(Slot::A), Target::Rescue);
    let slots = [(a, true); 3];
    assert_eq!(armed[..3], slots);
    assert_eq!(
        armed[3..],
        [(rescue, true), (rescue, true), (rescue, false), (a, true)]
    );
}
