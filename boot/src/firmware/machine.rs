//! The firmware as the machine that the loader works on.

use super::disks::Disk;
use super::image::{self, Image};
use super::{Pages, say, watchdog};
use core::fmt::Arguments;
use holdfast_boot::machine::Machine;
use holdfast_core::gpt::Geometry;
use holdfast_core::header::Watchdog;
use uefi::Status;

/// One of the firmware's disks.
pub struct Uefi(pub Disk);

impl Machine for Uefi {
    type Memory = Pages;
    type Image = Image;
    type Fault = Status;

    fn geometry(&self) -> Geometry {
        self.0.geometry
    }

    fn disk_name(&self) -> &str {
        self.0.name()
    }

    fn say(&self, line: Arguments<'_>) {
        say!("{line}");
    }

    fn memory(&mut self, len: usize) -> Result<Pages, Status> {
        Pages::new(len).map_err(|e| e.status())
    }

    fn read(&mut self, lba: u64, len: usize) -> Result<Pages, Status> {
        self.0.read(lba, len).map_err(|e| e.status())
    }

    fn write(&mut self, lba: u64, bytes: &[u8]) -> Result<(), Status> {
        self.0.write(lba, bytes).map_err(|e| e.status())
    }

    fn load(&mut self, uki: &[u8]) -> Result<Image, Status> {
        image::load(uki).map_err(|e| e.status())
    }

    fn arm(&mut self, watchdog: Watchdog, seconds: u16) -> Option<Watchdog> {
        watchdog::arm(watchdog, seconds)
    }

    fn start(&mut self, image: Image, options: &[u16]) -> Status {
        image::start(image, options)
            .err()
            .map_or(Status::SUCCESS, |e| e.status())
    }
}
