//! A small experiment on the tiny model of core-train's tests, with judges made on the spot.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use burn::tensor::Device;
use core_model::Network;
use core_model::checkpoint::Precision;
use core_model::clip::{ClipConfig, ClipModel, ClipVisionConfig};
use core_model::dino::{DinoConfig, DinoModel};
use core_model::image_processor::ImageProcessor;
use core_model::text_encoder::TextEncoderConfig;

/// Side of the pictures that the judges look at.
const SIDE: usize = 32;

pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn core_eval() -> Command {
    Command::cargo_bin("core-eval").unwrap()
}

/// A folder with everything that an experiment names.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let sandbox = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let model = sandbox.path("model");
        copy(
            &checkout().join("core-train/tests/fixtures/trajectory/model"),
            &model,
        );
        sandbox.make_judges();
        for concept in ["spotted-dog", "striped-cup"] {
            let from = checkout().join("experiments/concepts").join(concept);
            copy(&from, &sandbox.path(concept));
        }
        sandbox.write(
            "prompts.csv",
            "group,kind,prompt\n\
             animate,plain,a photo of a {}\n\
             animate,style,a red {} on the beach\n\
             inanimate,plain,a photo of a {}\n\
             inanimate,background,a {} on the beach\n",
        );
        sandbox.write("recipe.toml", RECIPE);
        sandbox.write("experiment.toml", EXPERIMENT);
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}", path.display()))
    }

    /// The experiment with one edit.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = self.read("experiment.toml");
        assert!(text.contains(from), "{from}");
        self.write("experiment.toml", &text.replace(from, to));
    }

    /// `core-eval experiment.toml` into a folder of results.
    pub(crate) fn command(&self, results: &str) -> Command {
        let mut command = core_eval();
        command
            .arg(self.path("experiment.toml"))
            .arg("--results")
            .arg(self.path(results));
        command
    }

    /// Runs the experiment and returns what it printed.
    pub(crate) fn run(&self, results: &str) -> String {
        let output = self.command(results).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one message of a command that must fail.
    pub(crate) fn failure(mut command: Command) -> String {
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(message.matches("error:").count(), 1, "{message}");
        message
    }

    /// A CLIP and a DINO, freshly initialised.
    fn make_judges(&self) {
        let device = Device::flex();
        let clip = self.path("clip");
        let tokenizer = checkout().join("core-train/tests/fixtures/trajectory/model/tokenizer");
        copy(&tokenizer, &clip);
        let config = ClipConfig {
            text_config: TextEncoderConfig {
                vocab_size: 544,
                hidden_size: 16,
                intermediate_size: 32,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                max_position_embeddings: 16,
                bos_token_id: 542,
                eos_token_id: 543,
                pad_token_id: 543,
                ..TextEncoderConfig::default()
            },
            vision_config: ClipVisionConfig {
                hidden_size: 16,
                intermediate_size: 32,
                num_hidden_layers: 1,
                num_attention_heads: 2,
                image_size: SIDE,
                patch_size: 8,
                ..ClipVisionConfig::default()
            },
            projection_dim: 8,
            ..ClipConfig::default()
        };
        let model = ClipModel::init(&config, 1, &device).unwrap();
        model.save(&clip, Precision::Full).unwrap();
        ImageProcessor::clip(SIDE as u32).save(&clip).unwrap();
        let dino = self.path("dino");
        std::fs::create_dir_all(&dino).unwrap();
        let config = DinoConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: SIDE,
            patch_size: 8,
            ..DinoConfig::default()
        };
        let model = DinoModel::init(&config, 2, &device).unwrap();
        model.save(&dino, Precision::Full).unwrap();
        ImageProcessor::vit(SIDE as u32).save(&dino).unwrap();
    }
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

const RECIPE: &str = r#"
[[stages]]
name = "embedding"
train = ["embedding"]
steps = 12
batch_size = 2
learning_rate = 1e-2
prompts = ["a photo of a {}"]
regularization_prompts = ["a {} on the beach", "a green {}"]
rescale = { from = 4, to = 8 }

[[stages.regularizers]]
kind = "context_embedding"
weight = 0.1

[[stages.regularizers]]
kind = "context_attention"
weight = 1.0

[[stages]]
name = "identity"
train = ["unet"]
steps = 6
batch_size = 2
learning_rate = 1e-3
prompts = ["a photo of a {}"]
"#;

const EXPERIMENT: &str = r#"
name = "small"
model = "model"
concepts = ["spotted-dog", "striped-cup"]
seeds = [0]
recipe = "recipe.toml"

[[variants]]
name = "CoRe"

[[variants]]
name = "no rescaling"
set = { "stages.0.rescale" = false }

[[variants]]
name = "no terms"
remove = ["context_embedding", "context_attention"]
set = { "stages.0.rescale" = false, "stages.0.regularizers.1.weight" = 2.0 }

[[variants]]
name = "CoRe again"

[[variants]]
name = "class word"
untuned = true

[sampling]
scheduler = "dpmpp-2m"
steps = 4
guidance_scale = 5.0
images_per_prompt = 2
prompts = "prompts.csv"

[evaluation]
clip = "clip"
dino = "dino"
protocol = "dreambooth"

[[effects]]
name = "the norm grows"
kind = "norm_growth"
variant = "no terms"

[[effects]]
name = "training helps"
kind = "score_difference"
metric = "dino"
variant = "CoRe"
baseline = "class word"
"#;
