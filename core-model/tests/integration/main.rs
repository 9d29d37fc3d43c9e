//! Integration tests of core-model: its networks, samplers, file formats and operations against the reference
//! implementations. One binary, one module per area; `tests/generate_fixtures/` writes the golden files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod clipseg;
mod common;
mod damage;
mod encoders;
mod feature_sets;
mod half;
mod id_adapters;
mod image_processor;
mod iresnet;
mod learned_embeddings;
mod neti;
mod noise_schedulers;
mod opening;
mod ops;
mod original_layout;
mod pipeline;
mod readers;
mod scratch;
mod siglip;
mod tokenizer;
mod torch_files;
mod trajectories;
mod unet;
mod untrusted;
mod vae;
