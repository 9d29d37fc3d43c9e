//! The single door to the operations whose stock CPU version is slow.
//!
//! [`plain`] holds each as a composition of Burn's own operations: what GPUs run and what tests
//! compare with.

pub mod plain;

pub use plain::{
    AdamW, adamw_step, attention, attention_with_probabilities, conv2d, geglu, gelu,
    gelu_approximate, group_norm, group_norm_silu, layer_norm, linear, quick_gelu, silu, softmax,
    upsample_nearest_2x,
};
