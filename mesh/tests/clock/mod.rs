//! A clock that a test moves: this program's own `clock_gettime`, which the standard library,
//! tokio and boringtun all call, and its own `poll`, with which the mesh's threads wait.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static AHEAD: AtomicI64 = AtomicI64::new(0);

/// The clock is everybody's: one test at a time moves it.
pub fn own() -> MutexGuard<'static, ()> {
    static OWNER: Mutex<()> = Mutex::new(());
    OWNER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves all clocks ahead; seconds count.
pub fn advance(by: Duration) {
    AHEAD.fetch_add(by.as_secs() as i64, SeqCst);
}

/// Deadlines of the threads that wait in [`poll`], in milliseconds.
static WAITING: Mutex<Vec<i64>> = Mutex::new(Vec::new());

fn waiting() -> MutexGuard<'static, Vec<i64>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for a write.
    unsafe { clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// A thread has not noticed yet that the time it waited for has come.
pub fn overdue() -> bool {
    let now = now();
    waiting().iter().any(|deadline| *deadline <= now)
}

/// Waits as the system does, but for times of the moved clock.
///
/// # Safety
/// As the C library's: `count` entries at `fds` are valid.
// SAFETY: the name is taken on purpose; the signature is that of POSIX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn poll(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: libc::c_int,
) -> libc::c_int {
    let slice = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    let ask = |limit: *const libc::timespec| {
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: the arguments are passed on; `limit` is null or points to `slice`.
        unsafe { libc::syscall(libc::SYS_ppoll, fds, count, limit, no_mask, 8) as libc::c_int }
    };
    if timeout < 0 {
        return ask(std::ptr::null());
    }
    let deadline = now() + i64::from(timeout);
    waiting().push(deadline);
    let result = loop {
        let result = ask(&raw const slice);
        if result != 0 || now() >= deadline {
            break result;
        }
    };
    let mut all = waiting();
    if let Some(own) = all.iter().position(|d| *d == deadline) {
        all.swap_remove(own);
    }
    result
}

/// The system's clock, and what it was moved by.
///
/// # Safety
/// As the C library's: `out` is valid for a write or null.
// SAFETY: the name is taken on purpose; the signature is that of POSIX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    out: *mut libc::timespec,
) -> libc::c_int {
    // SAFETY: the arguments are passed on; the kernel checks the pointer.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) };
    if result == 0 {
        // SAFETY: the kernel has just written there.
        unsafe { (*out).tv_sec += AHEAD.load(SeqCst) };
    }
    result as libc::c_int
}
