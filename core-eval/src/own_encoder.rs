//! Networks that score images and with which a tuning-free variant reads the photos: their scores flatter it.

use std::path::PathBuf;

use anyhow::Result;
use core_model::files::sha256;
use core_model::id_adapter::IdAdapterFolder;

use crate::checks::CheckRow;
use crate::experiment::Experiment;
use crate::metrics::Metric;

/// What the name of the measure in `checks.csv` ends in.
const MEASURE: &str = "_own_encoder";

/// What stands between two equal files.
const EQUALS: &str = " = ";

/// Two equal files: one of a network that scores images, one of the encoder of a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnEncoder {
    /// The name of the variant.
    pub variant: String,
    /// The metric that the network scores.
    pub metric: Metric,
    /// The file of the network.
    pub judge: PathBuf,
    /// The file of the variant's encoder.
    pub encoder: PathBuf,
}

impl OwnEncoder {
    /// What a reader of the scores has to know.
    pub fn warning(&self) -> String {
        let files = [&self.judge, &self.encoder].map(|file| file.display().to_string());
        sentence(&self.variant, self.metric, &files.join(EQUALS))
    }

    /// The row of `checks.csv`. It names the files with their folders alone, wherever these lie.
    pub(crate) fn check(&self) -> CheckRow {
        let files = [&self.judge, &self.encoder].map(|file| {
            let mut parts: Vec<_> = file.iter().rev().take(2).collect();
            parts.reverse();
            let parts = parts.iter().map(|part| part.to_string_lossy());
            parts.collect::<Vec<_>>().join("/")
        });
        CheckRow {
            variant: self.variant.clone(),
            measure: format!("{}{MEASURE}", self.metric.column()),
            value: 1.0,
            place: files.join(EQUALS),
        }
    }
}

/// What a reader has to know of a row of `checks.csv`; `None` of rows about something else.
pub(crate) fn of_check(variant: &str, measure: &str, place: &str) -> Option<String> {
    let metric = Metric::named(measure.strip_suffix(MEASURE)?)?;
    Some(sentence(variant, metric, place))
}

/// What a reader of a variant's scores has to know, given the two equal files.
fn sentence(variant: &str, metric: Metric, files: &str) -> String {
    format!(
        "{} flatters {variant}: the network that scores its images is the one with which it reads the photos \
         ({files}), so what is drawn is what this network sees in a photo, whether or not others see the \
         same; score with another network.",
        metric.title()
    )
}

/// The networks of an experiment that are encoders of its variants, by the digests of their files. Folders
/// that are absent have none.
///
/// # Errors
/// A file that cannot be read; an adapter without weights.
pub fn own_encoders(experiment: &Experiment) -> Result<Vec<OwnEncoder>> {
    let mut found = Vec::new();
    let adapters = experiment.adapters();
    for (variant, folder) in adapters.filter(|(_, folder)| folder.is_dir()) {
        for encoder in IdAdapterFolder::open(folder)?.weights()? {
            let digest = sha256(&encoder)?;
            for metric in experiment.metrics() {
                found.extend(judge(experiment, metric, &digest)?.map(|judge| OwnEncoder {
                    variant: variant.to_string(),
                    metric,
                    judge,
                    encoder: encoder.clone(),
                }));
            }
        }
    }
    Ok(found)
}

/// The file with this digest of the network that scores a metric.
fn judge(experiment: &Experiment, metric: Metric, digest: &str) -> Result<Option<PathBuf>> {
    let kind = metric.definition().encoder();
    let folder = experiment.evaluation.encoders.get(kind);
    let Some(folder) = folder.filter(|folder| folder.path().is_dir()) else {
        return Ok(None);
    };
    let mut files = folder.digests()?.iter();
    let file = files.find(|(_, of_file)| *of_file == digest);
    Ok(file.map(|(name, _)| folder.path().join(name)))
}

/// Says which networks of an experiment are encoders of its variants.
///
/// # Errors
/// As [`own_encoders`].
pub(crate) fn say_own_encoders(experiment: &Experiment) -> Result<()> {
    for own in own_encoders(experiment)? {
        tracing::warn!("{}", own.warning());
    }
    Ok(())
}
