//! Holdfast image.
