//! Writing to media in memory: whole ones, ones that break, ones that go away, ones that lie.

use super::*;
use crate::plan::{Area, Patch};
use holdfast_core::layout::ALIGN;
use proptest::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

const LEN: u64 = 8 * ALIGN;
const DEVICE: u64 = 11 * ALIGN + 512;
/// What lay on the medium before.
const OLD: u8 = 0xa5;
/// What a medium makes of stretches that nobody needs.
const FORGOTTEN: u8 = 0x5a;

struct Memory {
    bytes: Mutex<Vec<u8>>,
    /// Operations still to succeed; then `fault`.
    left: AtomicU64,
    fault: i32,
    /// Loses what is written to this block.
    stuck: Option<u64>,
    /// Cannot read this block.
    unreadable: Option<u64>,
    there: AtomicBool,
}

impl Memory {
    fn new() -> Self {
        Self {
            bytes: Mutex::new(vec![OLD; DEVICE as usize]),
            left: AtomicU64::new(u64::MAX),
            fault: libc::EIO,
            stuck: None,
            unreadable: None,
            there: AtomicBool::new(true),
        }
    }

    fn count(&self) -> io::Result<()> {
        let before = self.left.fetch_sub(1, Ordering::Relaxed);
        if before == 0 {
            self.left.store(0, Ordering::Relaxed);
            if self.fault == libc::ENODEV {
                self.there.store(false, Ordering::Relaxed);
            }
            return Err(io::Error::from_raw_os_error(self.fault));
        }
        Ok(())
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.count()?;
        let mut memory = self.bytes.lock().unwrap();
        let at = offset as usize;
        memory[at..at + bytes.len()].copy_from_slice(bytes);
        if let Some(stuck) = self
            .stuck
            .filter(|s| (at..at + bytes.len()).contains(&(*s as usize)))
        {
            memory[stuck as usize] ^= 0x10;
        }
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

impl Target for Memory {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.as_ptr().align_offset(4096) == 0 && offset.is_multiple_of(512));
        self.put(offset, bytes)
    }
    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.put(offset, &vec![0; len as usize])
    }
    fn forget(&self, offset: u64, len: u64) -> io::Result<()> {
        self.put(offset, &vec![FORGOTTEN; len as usize])
    }
    fn flush(&self) -> io::Result<()> {
        self.count()
    }
    fn drop_cache(&self) {}
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = offset..offset + buffer.len() as u64;
        if self.unreadable.is_some_and(|b| range.contains(&b)) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let at = offset as usize;
        buffer.copy_from_slice(&self.bytes.lock().unwrap()[at..at + buffer.len()]);
        Ok(())
    }
    fn is_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }
}

struct Bytes {
    bytes: Vec<u8>,
    holes: bool,
    breaks: Option<u64>,
}

impl Source for Bytes {
    fn next_data(&mut self, from: u64) -> Result<Option<Range>> {
        if !self.holes {
            return Ok((from < self.bytes.len() as u64).then_some(from..u64::MAX));
        }
        let page = |n: u64| &self.bytes[n as usize * 4096..(n as usize + 1) * 4096];
        let pages = self.bytes.len() as u64 / 4096;
        let full = |n: &u64| page(*n).iter().any(|b| *b != 0);
        let Some(first) = (from / 4096..pages).find(full) else {
            return Ok(None);
        };
        let end = (first..pages).find(|n| !full(n)).unwrap_or(pages);
        Ok(Some((first * 4096).max(from)..end * 4096))
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if self.breaks.is_some_and(|b| offset >= b) {
            return Err(Error::NoImage("broken".into()));
        }
        let at = offset as usize;
        buffer.copy_from_slice(&self.bytes[at..at + buffer.len()]);
        Ok(())
    }
    fn finish(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
    fn total(&self) -> Option<u64> {
        None
    }
}

struct Silent;
impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: &str, _: u64) {}
    fn end(&self, _: &str, _: u64, _: Duration) {}
}

/// An image of 8 MiB: MiB 2 and 3 are a partition whose first MiB is exact, 5 and 6 are one whose
/// first half MiB is.
fn plan(patches: Vec<Patch>) -> Plan {
    let areas = vec![
        Area {
            start: 2 * ALIGN,
            end: 4 * ALIGN,
            exact: 3 * ALIGN,
        },
        Area {
            start: 5 * ALIGN,
            end: 7 * ALIGN,
            exact: 5 * ALIGN + ALIGN / 2,
        },
    ];
    Plan::made(LEN, DEVICE, areas, patches)
}

fn image(data: &[(u64, u8)]) -> Vec<u8> {
    let mut bytes = vec![0; LEN as usize];
    for (at, byte) in data {
        bytes[*at as usize] = *byte;
    }
    bytes
}

fn flash_to(memory: &Memory, plan: &Plan, image: Vec<u8>, holes: bool, stop: bool) -> Result<Done> {
    let job = Job {
        target: memory,
        path: Path::new("/dev/card"),
        progress: &Silent,
        stop: &AtomicBool::new(stop),
        verify: true,
    };
    let source = Bytes {
        bytes: image,
        holes,
        breaks: None,
    };
    run(Box::new(source), plan, &job)
}

/// Neither firmware nor our loader finds a table, and no old one is left.
fn starts_nothing(bytes: &[u8]) -> bool {
    let front = &bytes[..4096];
    let zero = |b: &[u8]| b.iter().all(|b| *b == 0);
    zero(front) && zero(&bytes[(DEVICE - ALIGN) as usize..])
}

#[test]
fn a_medium_that_goes_away_at_any_moment_starts_nothing() {
    let data = [
        (ALIGN, 1),
        (2 * ALIGN + 9, 2),
        (6 * ALIGN, 3),
        (7 * ALIGN - 1, 4),
    ];
    let plan = plan(vec![]);
    for fault in [libc::ENODEV, libc::EIO] {
        for ops in 0.. {
            let memory = Memory {
                left: AtomicU64::new(ops),
                fault,
                ..Memory::new()
            };
            let result = flash_to(&memory, &plan, image(&data), true, false);
            let bytes = memory.bytes();
            if result.is_ok() {
                assert!(ops > 10);
                assert_eq!(bytes[..ALIGN as usize], plan.front);
                break;
            }
            let error = result.unwrap_err();
            match fault {
                libc::ENODEV => assert!(matches!(error, Error::Gone { .. }), "{error}"),
                _ => assert!(matches!(error, Error::Write { .. }), "{error}"),
            }
            assert!(error.to_string().contains("does not start"), "{error}");
            if bytes[..4096] == plan.front[..4096] {
                // Only the last flush failed: everything else was on the medium before.
                assert_eq!(bytes[..ALIGN as usize], plan.front);
                assert_eq!(bytes[(LEN - ALIGN) as usize..LEN as usize], plan.back);
                data.iter()
                    .for_each(|(at, b)| assert_eq!(bytes[*at as usize], *b));
                continue;
            }
            // The very first operations clear what was there before.
            assert!(ops < 4 || starts_nothing(&bytes), "after {ops}");
        }
    }
}

#[test]
fn it_says_how_far_it_came() {
    let data: Vec<_> = (1..7).map(|n| (n * ALIGN, 1)).collect();
    let memory = Memory {
        left: AtomicU64::new(6),
        fault: libc::ENODEV,
        ..Memory::new()
    };
    let error = flash_to(&memory, &plan(vec![]), image(&data), true, false).unwrap_err();
    let Error::Gone { done, total, .. } = &error else {
        panic!("{error}")
    };
    // Two threads write: which of two runs comes first is open.
    assert!((2..7).contains(done) && *total == 8, "{error}");
    let words = format!("after {done} of 8 MiB");
    assert!(error.to_string().contains(&words), "{error}");
}

#[test]
fn a_card_that_forgets_is_named_with_its_block_and_never_starts() {
    let at = 6 * ALIGN + 5 * 4096 + 77;
    let data = [(at, 9)];
    for (stuck, unreadable) in [(Some(at), None), (None, Some(at))] {
        let memory = Memory {
            stuck,
            unreadable,
            ..Memory::new()
        };
        let error = flash_to(&memory, &plan(vec![]), image(&data), true, false).unwrap_err();
        let Error::BadCard { bad, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(bad.offset, at / 4096 * 4096);
        assert_eq!((bad.count, bad.unreadable), (1, unreadable.is_some()));
        let block = format!("block {} ", at / 4096);
        assert!(error.to_string().contains(&block), "{error}");
        assert!(starts_nothing(&memory.bytes()));
    }
    // Where zeros have to be, too.
    let memory = Memory {
        stuck: Some(3 * ALIGN - 1),
        ..Memory::new()
    };
    let error = flash_to(&memory, &plan(vec![]), image(&data), true, false).unwrap_err();
    assert!(matches!(error, Error::BadCard { .. }), "{error}");
}

#[test]
fn a_card_that_wraps_around_is_bad() {
    /// Says that it has room, and has half of it.
    struct Fake(Memory);
    impl Target for Fake {
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(offset % (4 * ALIGN), bytes)
        }
        fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
            (0..len / 512).try_for_each(|n| self.0.zero((offset + n * 512) % (4 * ALIGN), 512))
        }
        fn forget(&self, _: u64, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn drop_cache(&self) {}
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset % (4 * ALIGN), buffer)
        }
        fn is_there(&self) -> bool {
            true
        }
    }
    let data: Vec<_> = (0..LEN / 4096)
        .map(|n| (n * 4096, (n % 255) as u8 + 1))
        .collect();
    let fake = Fake(Memory::new());
    let job = Job {
        target: &fake,
        path: Path::new("/dev/card"),
        progress: &Silent,
        stop: &AtomicBool::new(false),
        verify: true,
    };
    let source = Box::new(Bytes {
        bytes: image(&data),
        holes: false,
        breaks: None,
    });
    let error = run(source, &plan(vec![]), &job).unwrap_err();
    assert!(matches!(error, Error::BadCard { .. }), "{error}");
}

#[test]
fn a_stop_and_an_image_that_breaks_off_leave_nothing_that_starts() {
    let data = [(ALIGN, 1), (6 * ALIGN, 3)];
    let memory = Memory::new();
    let error = flash_to(&memory, &plan(vec![]), image(&data), true, true).unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error}");

    let memory = Memory::new();
    let job = Job {
        target: &memory,
        path: Path::new("/dev/card"),
        progress: &Silent,
        stop: &AtomicBool::new(false),
        verify: true,
    };
    let source = Box::new(Bytes {
        bytes: image(&data),
        holes: false,
        breaks: Some(4 * ALIGN),
    });
    let error = run(source, &plan(vec![]), &job).unwrap_err();
    assert!(matches!(error, Error::NoImage(_)), "{error}");
    assert!(starts_nothing(&memory.bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Written, zeroed and left out together are the image, its patches and its tables; what is
    /// left out lies in the tails that the plan names.
    #[test]
    fn what_is_on_the_medium_is_the_image(
        data in prop::collection::vec((ALIGN..LEN - ALIGN, 1u8..), 0..30),
        patch in (ALIGN..LEN - ALIGN - 70_000, 0usize..70_000, any::<u8>()),
        holes in any::<bool>(),
    ) {
        let plan = plan(vec![Patch { offset: patch.0, bytes: vec![patch.2; patch.1] }]);
        let image = image(&data);
        let memory = Memory::new();
        let done = flash_to(&memory, &plan, image.clone(), holes, false).unwrap();
        let mut want = image;
        plan.patches[0].apply(0, &mut want);
        want[..ALIGN as usize].copy_from_slice(&plan.front);
        want[(LEN - ALIGN) as usize..].copy_from_slice(&plan.back);
        let got = memory.bytes();
        let mut left_out = 0;
        for (n, (want, got)) in want.chunks(BLOCK as usize).zip(got.chunks(BLOCK as usize)).enumerate() {
            let at = n as u64 * BLOCK;
            if want == got { continue; }
            left_out += BLOCK;
            prop_assert!(want.iter().all(|b| *b == 0), "block at {at}");
            let area = plan.areas.iter().find(|a| (a.start..a.end).contains(&at));
            prop_assert!(area.is_some_and(|a| at >= a.exact), "block at {at}");
        }
        prop_assert_eq!(done.left_out, left_out);
        // Beyond the image: the last MiB is zero, whatever the rest is.
        prop_assert!(got[(DEVICE - ALIGN) as usize..].iter().all(|b| *b == 0));
    }
}
