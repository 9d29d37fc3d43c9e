//! Training with frozen weights in float16, on the device that `CORE_TEST_DEVICE` names: GPUs compute in
//! float16 and scale the loss, the cpu computes in float32.

use std::path::{Path, PathBuf};

use crate::common::{fixture, photos, train, train_step_by_step, write};

/// All terms on an embedding, then the whole U-Net. The second weight is so large that the gradients of
/// the first loss scale leave float16's range.
fn config(folder: &Path, precision: &str) -> PathBuf {
    photos(&folder.join("photos"));
    let device = std::env::var("CORE_TEST_DEVICE").unwrap_or("cpu".into());
    let text = format!(
        "seed = 3\ndevice = {device:?}\n[model]\npath = {:?}\nprecision = {precision:?}\n\
         [concept]\nname = \"robot\"\nimages = \"photos\"\nsuper_category = \"toy dog\"\n\
         [[stages]]\nname = \"embedding\"\ntrain = [\"embedding\"]\nsteps = 3\nbatch_size = 2\n\
         learning_rate = 1e-3\nprompts = [\"a photo of a {{}}\"]\n\
         regularization_prompts = [\"a {{}} on the beach\"]\n\
         [[stages.regularizers]]\nkind = \"context_embedding\"\nweight = 0.5\n\
         [[stages.regularizers]]\nkind = \"context_attention\"\nweight = 1e5\n\
         [[stages]]\nname = \"identity\"\ntrain = [\"unet\"]\nsteps = 2\nbatch_size = 1\n\
         learning_rate = 1e-5\nprompts = [\"a photo of a {{}}\"]\n",
        fixture("model"),
    );
    write(folder, "run.toml", &text)
}

/// The losses of a finished run.
fn losses(run: &Path) -> Vec<f64> {
    let mut reader = csv::Reader::from_path(run.join("metrics.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let column = header.iter().position(|name| name == "loss").unwrap();
    let records = reader.records().map(Result::unwrap);
    records
        .map(|record| record[column].parse().unwrap())
        .collect()
}

#[test]
fn losses_are_those_of_float32_within_the_rounding_of_float16() {
    let folder = tempfile::tempdir().unwrap();
    let run = |precision: &str| {
        let output = folder.path().join(format!("{precision}-run"));
        train(&config(folder.path(), precision), &output, None);
        losses(&output)
    };
    let (full, half) = (run("float32"), run("float16"));
    assert_eq!(full.len(), 5);
    for (full, half) in full.iter().zip(&half) {
        let off = (full - half).abs() / full;
        assert!(off < 0.02, "a loss of {half} instead of {full}");
    }
}

#[test]
fn a_run_in_float16_stopped_after_every_step_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path(), "float16");
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    train(&path, &whole, None);
    assert_eq!(train_step_by_step(&path, &parts), 5);
    for name in ["metrics.csv", "learned_embeds.safetensors"] {
        let digest = |run: &Path| core_model::files::sha256(&run.join(name)).unwrap();
        assert_eq!(digest(&parts), digest(&whole), "{name}");
    }
}
