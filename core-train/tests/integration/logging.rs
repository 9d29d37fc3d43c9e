//! What a run writes while it trains: metrics in several forms, scores of validation images, checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_metrics::{EncoderKind, Metric};
use core_model::files::sha256;
use core_model::image_processor::load_image;
use core_model::photos::PhotoFolder;
use core_train::{Run, RunConfig};

use crate::common::{fixture, open, photos, read, train, train_step_by_step, write};

/// A checkpoint of the mini world.
fn mini(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models")
        .join(name)
}

/// Two stages with everything that can be written while they train.
fn config(folder: &Path) -> PathBuf {
    photos(&folder.join("photos"));
    let text = format!(
        "checkpoint_every = 2\nreport_to = [\"jsonl\", \"tensorboard\"]\n[model]\npath = {:?}\n\
         [concept]\nname = \"robot\"\nimages = \"photos\"\nsuper_category = \"dog\"\n\
         [validation]\nevery = 2\nprompts = [\"a {{}} on the beach\", \"a red {{}}\"]\n\
         scores = true\nencoders = {{ clip = {:?}, dino = {:?} }}\n\
         [[stages]]\nname = \"embedding\"\ntrain = [\"embedding\"]\nsteps = 4\nbatch_size = 1\n\
         learning_rate = 1e-2\nprompts = [\"a photo of a {{}}\"]\n\
         [[stages]]\nname = \"identity\"\ntrain = [\"cross_attention_kv\"]\nsteps = 3\nbatch_size = 1\n\
         learning_rate = 1e-3\nprompts = [\"a photo of a {{}}\"]\n",
        fixture("model"),
        mini("mini-clip"),
        mini("mini-dino"),
    );
    write(folder, "run.toml", &text)
}

/// The digests of the files below a folder whose bytes hold no time, by their paths.
fn digests(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut digests = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().contains("tfevents") {
                let name = path.strip_prefix(folder).unwrap().to_path_buf();
                digests.insert(name, sha256(&path).unwrap());
            }
        }
    }
    digests
}

#[test]
fn a_run_stopped_after_every_step_writes_the_same_metrics_images_and_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path());
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    train(&path, &whole, None);
    assert_eq!(train_step_by_step(&path, &parts), 7);
    let found = digests(&parts);
    assert_eq!(found, digests(&whole));
    for name in [
        "metrics.jsonl",
        "checkpoints/embedding-00002/learned_embeds.safetensors",
        "checkpoints/embedding-00004/learned_embeds.safetensors",
        "checkpoints/identity-00002/unet/changed_weights.safetensors",
        "validation/identity-00002-01.png",
    ] {
        assert!(found.contains_key(Path::new(name)), "{name}: {found:?}");
    }
    assert!(!whole.join("checkpoints/embedding-00002/unet").exists());
    let events = "tensorboard/events.out.tfevents.0.core-train";
    let length = |run: &Path| std::fs::metadata(run.join(events)).unwrap().len();
    assert_eq!(length(&parts), length(&whole));
}

#[test]
fn a_checkpoint_is_the_run_that_would_have_ended_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path());
    let whole = folder.path().join("whole");
    train(&path, &whole, None);
    let checkpoint = whole.join("checkpoints/identity-00002");
    let run = Run::open(&checkpoint).unwrap();
    let steps: Vec<usize> = run.config.stages.iter().map(|stage| stage.steps).collect();
    assert_eq!(steps, [4, 2]);
    run.pipeline(&run.base_model("cpu").unwrap()).unwrap();

    let shorter = folder.path().join("shorter");
    train(&checkpoint.join("config.toml"), &shorter, None);
    for name in [
        "learned_embeds.safetensors",
        "unet/changed_weights.safetensors",
    ] {
        let (found, expected) = (open(&checkpoint.join(name)), open(&shorter.join(name)));
        for key in expected.keys() {
            assert_eq!(read(&found, key), read(&expected, key), "{name}: {key}");
        }
    }
}

#[test]
fn validation_images_have_the_mean_scores_of_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path());
    let output = folder.path().join("run");
    train(&path, &output, None);
    let mut reader = csv::Reader::from_path(output.join("metrics.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let texts = ["a dog on the beach", "a red dog"];
    let photos = PhotoFolder::read(&folder.path().join("photos")).unwrap();
    for metric in Metric::ALL {
        let Some(column) = header.iter().position(|name| name == metric.column()) else {
            continue;
        };
        let kind: &EncoderKind = metric.definition().encoder();
        let device = core_model::device::parse_device("cpu").unwrap();
        let encoder = (kind.load)(&mini(&format!("mini-{}", kind.key)), &device).unwrap();
        let feature = |path: &Path| {
            let image = load_image(path).unwrap();
            encoder.image_features(&[image]).unwrap().remove(0)
        };
        let score = |index: usize| {
            let image = feature(&output.join(format!("validation/embedding-00004-{index:02}.png")));
            let similarity = |other: &[f32]| metric.definition().similarity(&image, other);
            match metric.reads_photos() {
                false => similarity(&encoder.text_feature(texts[index]).unwrap()),
                true => {
                    let of_photos = photos.files.iter().map(|photo| similarity(&feature(photo)));
                    of_photos.sum::<f64>() / photos.files.len() as f64
                }
            }
        };
        let expected = (score(0) + score(1)) / 2.0;
        let found: f64 = rows[3][column].parse().unwrap();
        assert!(
            (found - expected).abs() < 1e-6,
            "{}: {found}, not {expected}",
            metric.title()
        );
        assert_eq!(&rows[2][column], "", "no image is drawn after step 3");
    }
    assert!(header.iter().any(|name| name == "dino"));
}

#[test]
fn what_cannot_be_written_while_training_is_refused_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path());
    let refused = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let config = RunConfig::load(&path, &sets);
        let output = folder.path().join("refused");
        let run = config.and_then(|config| {
            let options = core_train::RunOptions {
                output: &output,
                scratch: None,
                unfinished: core_train::run::folder::Unfinished::Refuse,
                replay: None,
                stop: &std::sync::atomic::AtomicBool::new(false),
                keep_state: false,
                show_progress: false,
            };
            core_train::run(&config, &options)
        });
        assert!(!output.exists());
        run.unwrap_err().to_string()
    };
    for (sets, expected) in [
        (&["checkpoint_every=0"][..], "checkpoint_every"),
        (&["report_to=[\"wandb\"]"], "`jsonl`"),
        (&["report_to=[\"jsonl\", \"jsonl\"]"], "twice"),
        (&["validation.encoders={}"], "validation.encoders"),
        (&["validation.scores=false"], "validation.encoders"),
        (&["validation.encoders={ clap = \"models\" }"], "clap"),
        (
            &["validation.encoders={ identity = \"models\" }"],
            "compares faces",
        ),
        (&["validation.encoders={ dino = \"absent\" }"], "absent"),
    ] {
        let message = refused(sets);
        assert!(message.contains(expected), "{sets:?}: {message}");
    }
}
