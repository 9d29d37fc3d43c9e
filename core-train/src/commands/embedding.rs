//! `core-train embedding`: inspects the file of a learned concept, and converts it to the layout that
//! most tools read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use burn::tensor::Device;
use clap::{Args, Subcommand};
use core_model::Network;
use core_model::learned_embedding::LearnedEmbedding;
use core_model::params::to_vec;
use core_model::source::{ModelSource, embedding_file};
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use serde::Serialize;

use super::{print_report, say};

/// Number of nearest vocabulary tokens shown for each vector.
const NEAREST: usize = 5;

/// Arguments of `core-train embedding`.
#[derive(Debug, Args)]
pub(crate) struct EmbeddingArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what a file holds and, with a model, the nearest tokens of the vocabulary.
    Inspect {
        /// Learned concept of any tool: safetensors, pt or bin
        file: PathBuf,
        /// Model folder as diffusers writes it, one-file checkpoint, or repository of the hub
        #[arg(long, value_name = "MODEL")]
        model: Option<PathBuf>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the vectors under one key, the token, as diffusers, AUTOMATIC1111, ComfyUI and others read them.
    Convert {
        /// Learned concept of any tool: safetensors, pt or bin
        input: PathBuf,
        /// The safetensors file to write; tools call the concept by its name
        output: PathBuf,
        /// Placeholder token to write instead of the one in the file
        #[arg(long, value_name = "TOKEN")]
        token: Option<String>,
        /// Width of the text encoder, for a file with vectors for several encoders
        #[arg(long, value_name = "N")]
        width: Option<usize>,
    },
}

/// Inspects or converts a learned concept.
///
/// # Errors
/// Unreadable files and models, vectors of another width than the model's, an unwritable output.
pub(crate) fn run(args: &EmbeddingArgs) -> Result<()> {
    match &args.command {
        Command::Inspect { file, model, json } => {
            let report = inspect(file, model.as_deref())?;
            print_report(*json, &report, Report::lines)
        }
        Command::Convert {
            input,
            output,
            token,
            width,
        } => {
            ensure!(
                input != output,
                "{}: is the input file; name another file to write",
                output.display()
            );
            let (mut embedding, layout) =
                LearnedEmbedding::load_with_layout(&embedding_file(input)?, *width)?;
            if let Some(token) = token {
                ensure!(
                    !token.trim().is_empty(),
                    "--token is empty; write it as <tom>"
                );
                embedding.token.clone_from(token);
            }
            embedding.save(output)?;
            say(&format!(
                "{}: {layout}; {}: `{}`, {} vectors of {}",
                input.display(),
                output.display(),
                embedding.token,
                embedding.num_vectors,
                embedding.dim
            ));
            Ok(())
        }
    }
}

/// What a learned concept is.
#[derive(Debug, Serialize)]
struct Report {
    token: String,
    layout: String,
    num_vectors: usize,
    dim: usize,
    metadata: BTreeMap<String, String>,
    /// None where no model was named.
    vocabulary: Option<VocabularyNorms>,
    vectors: Vec<VectorReport>,
}

/// The lengths of a model's own vectors.
#[derive(Debug, Serialize)]
struct VocabularyNorms {
    tokens: usize,
    smallest: f64,
    median: f64,
    largest: f64,
}

#[derive(Debug, Serialize)]
struct VectorReport {
    norm: f64,
    /// Empty where no model was named.
    nearest: Vec<Neighbour>,
}

/// A token of the vocabulary.
#[derive(Debug, Serialize)]
struct Neighbour {
    token: String,
    cosine: f64,
}

fn inspect(file: &Path, model: Option<&Path>) -> Result<Report> {
    let device = Device::flex();
    let model = model.map(|model| ModelSource::from(model.to_path_buf()).locate());
    let model = model.transpose()?;
    let encoder = model
        .as_ref()
        .map(|model| TextEncoder::load(&model.path().join("text_encoder"), &device))
        .transpose()?;
    let width = encoder.as_ref().map(|encoder| encoder.config().hidden_size);
    let (embedding, layout) = LearnedEmbedding::load_with_layout(&embedding_file(file)?, width)?;
    let metadata = embedding.metadata.iter();
    let norms = embedding.norms().into_iter();
    let mut report = Report {
        token: embedding.token.clone(),
        layout: layout.to_string(),
        num_vectors: embedding.num_vectors,
        dim: embedding.dim,
        metadata: metadata
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        vocabulary: None,
        vectors: norms
            .map(|norm| VectorReport {
                norm,
                nearest: Vec::new(),
            })
            .collect(),
    };
    if let (Some(encoder), Some(model)) = (encoder, model) {
        let tokenizer = Tokenizer::from_dir(&model.path().join("tokenizer"))?;
        let table = Vocabulary::new(&encoder);
        report.vocabulary = Some(table.lengths());
        let vectors = embedding.vectors.chunks_exact(embedding.dim);
        for (vector, found) in vectors.zip(&mut report.vectors) {
            let nearest = table.nearest(vector, found.norm).into_iter();
            found.nearest = nearest
                .map(|(id, cosine)| Neighbour {
                    token: tokenizer.token(id).trim().to_string(),
                    cosine,
                })
                .collect();
        }
    }
    Ok(report)
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "token `{}`, {} vectors of {}, layout: {}",
            self.token, self.num_vectors, self.dim, self.layout
        )];
        let metadata = self.metadata.iter();
        lines.extend(metadata.map(|(key, value)| format!("{key}: {value}")));
        if let Some(norms) = &self.vocabulary {
            lines.push(format!(
                "vocabulary: {} tokens, norm {:.4} to {:.4}, median {:.4}",
                norms.tokens, norms.smallest, norms.largest, norms.median
            ));
        }
        for (index, VectorReport { norm, nearest }) in self.vectors.iter().enumerate() {
            let nearest = nearest.iter();
            let nearest: Vec<String> = nearest
                .map(|near| format!("`{}` {:.3}", near.token, near.cosine))
                .collect();
            lines.push(match nearest.is_empty() {
                true => format!("vector {index}: norm {norm:.4}"),
                false => format!(
                    "vector {index}: norm {norm:.4}, nearest by cosine {}",
                    nearest.join(", ")
                ),
            });
        }
        lines
    }
}

/// The rows of a text encoder's token table.
struct Vocabulary {
    rows: Vec<f32>,
    norms: Vec<f64>,
    dim: usize,
}

impl Vocabulary {
    fn new(encoder: &TextEncoder) -> Self {
        let dim = encoder.config().hidden_size;
        let rows = to_vec(encoder.token_table());
        let norms = rows
            .chunks_exact(dim)
            .map(|row| dot(row, row).sqrt())
            .collect();
        Self { rows, norms, dim }
    }

    fn lengths(&self) -> VocabularyNorms {
        let mut norms = self.norms.clone();
        norms.sort_by(f64::total_cmp);
        VocabularyNorms {
            tokens: norms.len(),
            smallest: norms[0],
            median: norms[norms.len() / 2],
            largest: norms[norms.len() - 1],
        }
    }

    /// The tokens whose rows have the highest cosine with a vector.
    fn nearest(&self, vector: &[f32], norm: f64) -> Vec<(u32, f64)> {
        let rows = self.rows.chunks_exact(self.dim).zip(&self.norms);
        let mut cosines: Vec<(u32, f64)> = (0..)
            .zip(rows)
            .map(|(id, (row, length))| (id, dot(row, vector) / (length * norm).max(1e-12)))
            .collect();
        cosines.sort_by(|a, b| b.1.total_cmp(&a.1));
        cosines.truncate(NEAREST);
        cosines
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
