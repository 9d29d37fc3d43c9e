//! The single door to the operations whose stock CPU version is slow.
//!
//! [`plain`] holds each as a composition of Burn's own operations: what GPUs run and what tests
//! compare with. Beside it every file holds the fused CPU version of an operation with its own
//! backward pass; it serves float32 tensors of the flex backend, all others take the plain one.
//! Tensors on and off the autodiff tape may be mixed: those off it are constants, for which the
//! backward pass computes nothing.
//!
//! Work is cut by the shapes alone, so that results have the same bits for any number of threads.
//! All of it runs in the current rayon pool.

mod activation;
mod adamw;
mod add;
mod attention;
mod conv2d;
mod gemm;
mod group_norm;
mod instruction_set;
mod kernel;
mod layer_norm;
mod linear;
mod memory;
pub mod plain;
mod recompute;
mod simd;
mod softmax;
mod tape;
mod transpose;
mod upsample;

pub use activation::{geglu, gelu, gelu_approximate, quick_gelu, silu};
pub use adamw::adamw_step;
pub use add::add;
pub use attention::{attention, attention_with_probabilities};
pub(crate) use attention::{attention_with_mean, mean_map};
pub use conv2d::conv2d;
pub use group_norm::{group_norm, group_norm_silu};
pub(crate) use instruction_set::check_instruction_set;
pub use instruction_set::instruction_set;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use plain::AdamW;
pub(crate) use plain::cast;
pub(crate) use recompute::recompute;
pub use softmax::softmax;
pub use tape::is_cpu;
pub use upsample::upsample_nearest_2x;
