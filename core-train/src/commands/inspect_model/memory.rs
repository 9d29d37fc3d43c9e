//! How much memory a model needs.

use core_model::unet::SampleSize;
use serde::Serialize;

use super::{InspectArgs, Weights};
use core_train::adapters::AdapterConfig;
use core_train::cost::memory::{ModelSizes, StepSizes};

/// Estimates for one size of image, in bytes.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    batch_size: u64,
    width: u64,
    height: u64,
    generate: u64,
    train: Vec<Training>,
}

/// Training one set of weights.
#[derive(Debug, Serialize)]
struct Training {
    train: String,
    bytes: u64,
    bytes_with_gradient_checkpointing: u64,
}

/// What drawing and each kind of training need.
pub(super) fn estimate(args: &InspectArgs, sizes: &ModelSizes, weights: &[Weights; 3]) -> Memory {
    let factor = sizes.vae.factor() as u64;
    let own = sizes.unet.sample_size.unwrap_or(SampleSize::Square(64));
    let own = [own.width(), own.height()].map(|side| side as u64 * factor);
    let size = args.resolution.map_or(own, |side| [side; 2]);
    let [width, height] = size;
    let of = |train: &str, step: StepSizes| {
        let bytes = |checkpointing| {
            let step = StepSizes {
                checkpointing,
                ..step
            };
            sizes.training(step, size)
        };
        Training {
            train: train.into(),
            bytes: bytes(false),
            bytes_with_gradient_checkpointing: bytes(true),
        }
    };
    let step = StepSizes {
        batch: args.batch_size,
        attention: false,
        embedding: true,
        trained: 0,
        checkpointing: false,
    };
    let with_terms = StepSizes {
        attention: true,
        ..step
    };
    let mut train = vec![
        of("embedding", step),
        of("embedding with context_attention", with_terms),
    ];
    let kinds = AdapterConfig::KINDS.iter();
    for kind in kinds.filter(|kind| **kind != "embedding") {
        let trained = weights.iter().filter_map(|part| part.by_set.get(kind));
        let step = StepSizes {
            embedding: weights[0].by_set.contains_key(kind),
            trained: trained.sum(),
            ..step
        };
        train.push(of(kind, step));
    }
    Memory {
        batch_size: args.batch_size,
        width,
        height,
        generate: sizes.generation(args.batch_size, size),
        train,
    }
}

impl Memory {
    pub(super) fn lines(&self) -> Vec<String> {
        let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
        let mut lines = vec![
            format!(
                "memory in float32 for batches of {}, {} x {} pixels (estimated; --dry-run measures):",
                self.batch_size, self.width, self.height
            ),
            format!("  generate: {}", gib(self.generate)),
        ];
        lines.extend(self.train.iter().map(|training| {
            format!(
                "  train {}: {}; {} with gradient_checkpointing",
                training.train,
                gib(training.bytes),
                gib(training.bytes_with_gradient_checkpointing)
            )
        }));
        lines
    }
}
