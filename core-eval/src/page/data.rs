//! The data of a page, which is `summary.json` too.

use serde::Serialize;
use serde_json::Value;

use crate::attention_file::PromptAttention;
use crate::effects::EffectRow;
use crate::report::{SummaryRow, Verdict};

/// Raised when a key of `summary.json` changes its meaning.
pub(super) const FORMAT: u32 = 1;

/// Everything that a page shows. Variants, concepts, kinds and prompts are named once and are numbers from 0
/// elsewhere; the columns of images and photos have one value for each of them.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    pub(super) format: u32,
    pub(super) name: String,
    pub(super) command: String,
    pub(super) redraw: String,
    /// The day of the newest table.
    pub(super) date: Option<String>,
    pub(super) devices: Vec<String>,
    pub(super) revisions: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) missing: Vec<String>,
    /// The first is the baseline.
    pub(super) variants: Vec<String>,
    pub(super) concepts: Vec<Concept>,
    pub(super) kinds: Vec<String>,
    pub(super) prompts: Vec<String>,
    pub(super) seeds: Vec<u64>,
    pub(super) metrics: Vec<MetricTitle>,
    pub(super) protocols: Vec<ProtocolData>,
    pub(super) images: Images,
    pub(super) photos: Photos,
    pub(super) tokens: Vec<Tokens>,
    pub(super) attention: Vec<PromptAttention>,
    pub(super) curves: Vec<Curve>,
    pub(super) validation: Vec<ValidationCurve>,
    pub(super) effects: Vec<EffectRow>,
    pub(super) runs: Vec<RunData>,
    pub(super) environments: Vec<Value>,
    /// Seconds; null where the times of the files do not tell.
    pub(super) scoring: Option<u64>,
    /// Rows of `study.csv`; empty without a study.
    pub(super) study: Value,
    pub(super) thumbnails: Thumbnails,
}

#[derive(Debug, Serialize)]
pub(super) struct Concept {
    pub(super) name: String,
    pub(super) word: String,
    pub(super) group: String,
}

#[derive(Debug, Serialize)]
pub(super) struct MetricTitle {
    pub(super) column: &'static str,
    pub(super) title: &'static str,
    pub(super) reads_photos: bool,
}

/// Scores and checks under one protocol.
#[derive(Debug, Serialize)]
pub(super) struct ProtocolData {
    pub(super) name: String,
    /// The content of `protocol.json`.
    pub(super) protocol: Value,
    pub(super) masked: bool,
    pub(super) summary: Vec<Mean>,
    pub(super) checks: Vec<Check>,
    /// By metric, the score of every image.
    pub(super) scores: serde_json::Map<String, Value>,
    pub(super) closest: Vec<Option<f64>>,
    pub(super) photo: Vec<Option<usize>>,
    pub(super) foreground: Vec<Option<f64>>,
    pub(super) mask: Vec<String>,
}

/// A row of `summary.csv`, over the prompts of one kind or all.
#[derive(Debug, Serialize)]
pub(super) struct Mean {
    pub(super) kind: String,
    #[serde(flatten)]
    pub(super) row: SummaryRow,
    pub(super) verdict: Option<Verdict>,
}

#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) variant: String,
    pub(super) measure: String,
    pub(super) value: Option<f64>,
    pub(super) place: String,
}

/// The columns of images, in the order of the gallery.
#[derive(Debug, Default, Serialize)]
pub(super) struct Images {
    pub(super) variant: Vec<usize>,
    pub(super) concept: Vec<usize>,
    pub(super) kind: Vec<usize>,
    pub(super) prompt: Vec<usize>,
    pub(super) seed: Vec<u64>,
    /// The number among the images of its variant, concept, prompt and seed.
    pub(super) number: Vec<usize>,
    /// The address of the file; null where there is none.
    pub(super) file: Vec<Option<String>>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Photos {
    pub(super) concept: Vec<usize>,
    pub(super) file: Vec<String>,
}

/// The sheets of small images that the page holds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Thumbnails {
    /// How many are side by side on a sheet, and how many rows a sheet has.
    pub(super) across: usize,
    pub(super) photos: Thumbnail,
    pub(super) images: Thumbnail,
}

/// The small images of one kind; sheet 3 of photos is the element `photos-3`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Thumbnail {
    /// The side of one, in pixels.
    pub(super) side: u32,
    pub(super) media_type: &'static str,
    pub(super) sheets: usize,
    /// The numbers of images that could not be read.
    pub(super) absent: Vec<usize>,
}

/// The cosines of the context tokens of one prompt, means over concepts and seeds.
#[derive(Debug, Serialize)]
pub(super) struct Tokens {
    pub(super) variant: usize,
    pub(super) prompt: String,
    pub(super) tokens: Vec<String>,
    pub(super) mean: Vec<f64>,
    pub(super) low: Vec<f64>,
    pub(super) high: Vec<f64>,
}

/// Loss and norm of one variant and stage, means over concepts and seeds, in at most 150 steps.
#[derive(Debug, Serialize)]
pub(super) struct Curve {
    pub(super) variant: usize,
    pub(super) stage: String,
    pub(super) step: Vec<f64>,
    pub(super) loss: Vec<Option<f64>>,
    pub(super) norm: Vec<Option<f64>>,
    /// The first and the last step of rescaling.
    pub(super) rescale: Option<[u64; 2]>,
}

/// The scores of validation images of one variant, means over concepts and seeds.
#[derive(Debug, Serialize)]
pub(super) struct ValidationCurve {
    pub(super) variant: usize,
    pub(super) stage: String,
    pub(super) metric: &'static str,
    pub(super) step: Vec<u64>,
    pub(super) value: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct RunData {
    pub(super) variant: usize,
    pub(super) concept: String,
    pub(super) seed: u64,
    pub(super) address: Option<String>,
    pub(super) sampling: Value,
    /// Seconds; null where the times of the files do not tell.
    pub(super) training: Option<u64>,
    pub(super) generation: Option<u64>,
    /// The number of its environment.
    pub(super) environment: Option<usize>,
    /// Its configuration, for the first run of each variant.
    pub(super) config: Option<String>,
}
