//! Holdfast lighthouse.
