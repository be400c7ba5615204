//! Holdfast core.
