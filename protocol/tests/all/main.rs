//! The protocol against `spec/`: its vectors, the examples in its text, and properties.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod codes;
mod document;
mod headers;
mod identity;
mod money;
mod properties;
mod vectors;
