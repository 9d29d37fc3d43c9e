//! The end of a training: new weights never replace better ones unasked.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use burn::tensor::Device;

use super::objective::{Objective, Quality, is_empty};

/// A difference below this share of the old figure is that of rounding to the number format of the file.
const ROUNDING: f64 = 1e-3;

/// Writes the new network to its folders when these hold none, or one that is not better; with `replace`
/// always. Otherwise it goes to folders of the same names in `beside`.
///
/// # Errors
/// Better weights in the folders, or some that cannot be compared; an unwritable folder.
pub(super) fn save<O: Objective>(
    objective: &O,
    network: &O::Network,
    beside: &Path,
    replace: bool,
    device: &Device,
) -> Result<()> {
    let reason = reason_to_keep(objective, network, device)?;
    let Some(reason) = reason.filter(|_| !replace) else {
        return objective.save(network, &Path::to_path_buf);
    };
    objective.save(network, &|output| place_beside(beside, output))?;
    let places = objective.outputs().into_iter();
    let places: Vec<String> = places
        .map(|output| place_beside(beside, &output).display().to_string())
        .collect();
    bail!(
        "{reason}. Nothing there was replaced: the new weights are in {}. The same command with --replace puts \
         them in place without training again",
        places.join(" and ")
    )
}

fn place_beside(beside: &Path, output: &Path) -> PathBuf {
    beside.join(output.file_name().unwrap_or_default())
}

/// Why the weights in the folders of the network should stay; `None` when they may be replaced. Both figures
/// are told.
fn reason_to_keep<O: Objective>(
    objective: &O,
    network: &O::Network,
    device: &Device,
) -> Result<Option<String>> {
    let Some(stored) = objective.stored(device)? else {
        return Ok(not_comparable(&objective.outputs()));
    };
    let [old, new] = [&stored, network].map(|network| objective.compared(network));
    let (old, new) = (old?, new?);
    let folder = objective.folder().unwrap_or_default();
    let figures = format!(
        "{}: the weights there have {}, the new ones {}",
        folder.display(),
        in_words(&old),
        in_words(&new)
    );
    tracing::info!("{figures}");
    Ok(is_worse(objective.worth(&new), objective.worth(&old)).then_some(figures))
}

fn not_comparable(outputs: &[PathBuf]) -> Option<String> {
    let there = |folder: &&PathBuf| !is_empty(folder).unwrap_or(false);
    let folder = outputs.iter().find(there)?;
    Some(format!(
        "{}: there are weights, which cannot be compared with the new ones, because only a part of the network \
         is kept",
        folder.display()
    ))
}

fn is_worse(new: f64, old: f64) -> bool {
    new.is_nan() || new < old - ROUNDING * old.abs()
}

fn in_words(quality: &Quality) -> String {
    let figures = quality.iter();
    let figures: Vec<String> = figures
        .map(|(name, value)| format!("{name} {value:.4}"))
        .collect();
    figures.join(", ")
}

#[cfg(test)]
mod tests {
    use super::is_worse;

    #[test]
    fn only_more_than_rounding_is_worse() {
        assert!(is_worse(0.92, 0.94) && !is_worse(0.94, 0.92));
        assert!(!is_worse(0.9399, 0.94), "the file is in float16");
        assert!(!is_worse(25.0, 25.0));
        // An error, with its sign changed: .105 is worse than .103.
        assert!(is_worse(-0.105, -0.103) && !is_worse(-0.103, -0.105));
        assert!(is_worse(f64::NAN, 0.5) && !is_worse(0.5, f64::NAN));
    }
}
