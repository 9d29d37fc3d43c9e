//! Integration tests of core-losses: the terms against PyTorch and against finite differences.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod angular_margin;
mod gradients;
mod pytorch;
