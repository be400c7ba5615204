//! Writing an image to a card, a stick or a disk (`holdfast flash`).
//!
//! Decisions are functions on values: which device may be overwritten ([`device`]), what an image
//! is ([`image`]), and what has to be on the medium afterwards ([`plan`]). [`write`](mod@write)
//! carries a plan out and reads it back; [`medium`] knows when a card was taken out.

pub mod device;
mod error;
pub mod image;
pub mod medium;
pub mod plan;
pub mod seed;
mod sys;
pub mod write;

pub use error::{Error, Result};

/// What is written, left out, and compared at once, in bytes. Parts of a plan begin and end at
/// multiples of it.
pub const BLOCK: u64 = 64 << 10;

/// A stretch of a disk or an image, in bytes.
pub type Range = std::ops::Range<u64>;
