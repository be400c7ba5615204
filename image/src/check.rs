//! What a recipe does on a board, and what in it contradicts itself (`holdfast recipe check`).
//!
//! [`Explanation::of`] and [`conflicts`] are functions on recipe, board and, where it is known, what
//! the packages hold ([`Contents`]); only [`Contents::of`] reads files.

mod conflicts;
mod contents;
mod explain;

pub use self::{
    conflicts::{Conflict, Kind, conflicts},
    contents::Contents,
    explain::{Explanation, Said},
};
