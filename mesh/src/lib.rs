//! Holdfast mesh.
