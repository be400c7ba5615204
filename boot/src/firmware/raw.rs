//! Everything that needs `unsafe`: protocols shared with drivers, raw memory, the key block,
//! processor instructions.
#![allow(unsafe_code)]

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use holdfast_boot::fdt;
use holdfast_core::loader_keys;
use uefi::boot::{
    self, AllocateType, MemoryType, OpenProtocolAttributes, OpenProtocolParams, PAGE_SIZE,
    ScopedProtocol,
};
use uefi::proto::ProtocolPointer;
use uefi::proto::loaded_image::LoadedImage;
use uefi::system::with_config_table;
use uefi::{Guid, Handle, Result, guid};

/// Opens a protocol beside the drivers that use it already.
///
/// # Errors
/// The firmware's.
pub fn open<P: ProtocolPointer + ?Sized>(handle: Handle) -> Result<ScopedProtocol<P>> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: the loader neither disconnects controllers nor unloads drivers, so that handle and
    // protocol stay while it runs; firmware without other threads calls no driver meanwhile.
    unsafe { boot::open_protocol(params, OpenProtocolAttributes::GetProtocol) }
}

/// Page-aligned memory of the firmware, freed when dropped.
pub struct Pages {
    at: NonNull<u8>,
    len: usize,
    pages: usize,
}

impl Pages {
    /// At least one page, `len` bytes in use.
    ///
    /// # Errors
    /// When there is not that much memory.
    pub fn new(len: usize) -> Result<Self> {
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        let at = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, pages)?;
        Ok(Self { at, len, pages })
    }

    /// Uses only the first `len` bytes from now on.
    pub fn shorten(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Pages {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `at` is an allocation of at least `len` bytes that this value owns; it came
        // from outside of Rust, with whatever content, and every content is valid for bytes.
        unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages were allocated in `new`, nothing borrows them any more.
        let _ = unsafe { boot::free_pages(self.at, self.pages) };
    }
}

/// Gives a loaded image its options.
///
/// # Errors
/// The firmware's.
pub fn set_options(image: Handle, options: &[u16]) -> Result<()> {
    let mut loaded = open::<LoadedImage>(image)?;
    let bytes = u32::try_from(size_of_val(options)).unwrap_or(u32::MAX);
    // SAFETY: the caller of this private interface (`image::start`) keeps `options` until the
    // image has returned.
    unsafe { loaded.set_load_options(options.as_ptr().cast(), bytes) };
    Ok(())
}

/// Registers in memory. The firmware maps all memory where it lies (UEFI 2.10, 2.3.2 and 2.3.6).
pub struct Registers;

impl Registers {
    /// Reads one.
    pub fn read32(&self, address: u64) -> u32 {
        // SAFETY: the callers are the watchdogs' drivers: the addresses are those of their hardware,
        // found on this machine, aligned, and no object of this program lies there.
        unsafe { core::ptr::read_volatile(address as usize as *const u32) }
    }

    /// Writes one.
    pub fn write32(&self, address: u64, value: u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(address as usize as *mut u32, value) };
    }
}

/// Reads a port.
#[cfg(target_arch = "x86_64")]
pub fn port16(port: u16) -> u16 {
    let value: u16;
    // SAFETY: reads one of the chipset's ports; touches no memory.
    unsafe {
        core::arch::asm!("in ax, dx", out("ax") value, in("dx") port, options(nomem, nostack, preserves_flags))
    };
    value
}

/// Writes a port.
#[cfg(target_arch = "x86_64")]
pub fn set_port16(port: u16, value: u16) {
    // SAFETY: writes one of the watchdog's ports; touches no memory.
    unsafe {
        core::arch::asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags))
    };
}

/// The device tree that the firmware hands on, where it does (`EFI_DTB_TABLE_GUID`, UEFI 2.10, 4.6).
pub fn device_tree() -> Option<&'static [u8]> {
    const DTB: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");
    let at = with_config_table(|all| all.iter().find(|e| e.guid == DTB).map(|e| e.address))?;
    let at = NonNull::new(at.cast_mut().cast::<u8>())?;
    // SAFETY: the firmware's table points to a flattened tree, which begins with its header and stays
    // for the operating system.
    let header = unsafe { core::slice::from_raw_parts(at.as_ptr(), fdt::HEADER) };
    let len = fdt::len(header)?;
    // SAFETY: as above; the header says how long the tree is.
    Some(unsafe { core::slice::from_raw_parts(at.as_ptr(), len) })
}

/// Where the builder writes the cluster's keys.
#[used]
#[unsafe(link_section = ".hfkeys")]
static KEYS: [u8; loader_keys::LEN] = loader_keys::UNWRITTEN;

/// The key block as it is in this loader's file.
pub fn key_block() -> [u8; loader_keys::LEN] {
    // SAFETY: reads a static; volatile, because the compiler must not believe what it compiled.
    unsafe { core::ptr::read_volatile(&raw const KEYS) }
}

/// 64 random bits of the processor, where it has such an instruction.
#[cfg(target_arch = "x86_64")]
pub fn processor_random() -> Option<u64> {
    use core::arch::x86_64::{__cpuid, _rdrand64_step};
    const RDRAND: u32 = 1 << 30;
    if __cpuid(1).ecx & RDRAND == 0 {
        return None;
    }
    #[target_feature(enable = "rdrand")]
    fn step() -> Option<u64> {
        let mut value = 0;
        (0..10).find_map(|_| (_rdrand64_step(&mut value) == 1).then_some(value))
    }
    // SAFETY: the processor said that it has the instruction.
    unsafe { step() }
}

/// No such instruction that every processor of this kind has.
#[cfg(target_arch = "aarch64")]
pub fn processor_random() -> Option<u64> {
    None
}

/// A counter that runs since power-on.
#[cfg(target_arch = "x86_64")]
pub fn ticks() -> u64 {
    // SAFETY: reads the time stamp counter, which firmware leaves readable.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A counter that runs since power-on.
#[cfg(target_arch = "aarch64")]
pub fn ticks() -> u64 {
    let value: u64;
    // SAFETY: reads the generic timer's count, which firmware leaves readable.
    unsafe { core::arch::asm!("mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack)) };
    value
}
