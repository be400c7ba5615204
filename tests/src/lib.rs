//! Holdfast tests.
