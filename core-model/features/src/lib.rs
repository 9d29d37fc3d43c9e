//! One set of third-party features for every crate of the workspace. This crate has dependencies and no code.
//!
//! Cargo compiles a dependency once for every set of features that is asked of it, and everything above it with it. A
//! command for one crate (`cargo test -p core-losses`, `cargo run -p core-eval`) asks for the features that this crate
//! needs, a command for the workspace for those that any of its crates needs. Where the two differ, Burn is compiled
//! again, and may compute otherwise: without `gemm/x86-v4` the matrix products use other instructions. Therefore all
//! crates depend on this one, which names every dependency below Burn with the features that the workspace turns
//! on. `core-model/tests/integration/feature_sets.rs` compares the sets and says what is missing.
