//! The terms of the objective, one per file.

pub mod attention_statistics;
pub mod context_attention;
pub mod context_embedding;
pub mod diffusion;
pub mod embedding_anchor;
pub mod prior_preservation;
pub mod semantic_preservation;
