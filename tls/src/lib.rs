//! Holdfast tls.
