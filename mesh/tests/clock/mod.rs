//! A clock that a test moves: this program's own `clock_gettime`, which the standard library,
//! tokio and boringtun all call.
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
