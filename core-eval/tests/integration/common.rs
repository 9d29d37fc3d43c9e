//! A small experiment on the tiny model of core-train's tests, with image encoders made on the spot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use burn::tensor::Device;
use core_model::Network;
use core_model::Precision;
use core_model::clip::{ClipConfig, ClipModel, ClipVisionConfig};
use core_model::dino::{DinoConfig, DinoModel};
use core_model::image_processor::ImageProcessor;
use core_model::text_encoder::TextEncoderConfig;

/// The tables that must not depend on how an experiment was run, byte for byte.
pub(crate) const TABLES: [&str; 6] = [
    "scores.csv",
    "scores-core.csv",
    "summary.csv",
    "tokens.csv",
    "curves.csv",
    "effects.csv",
];

/// Side of the images that the encoders read, in pixels.
const SIDE: usize = 32;

pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn core_eval() -> Command {
    Command::cargo_bin("core-eval").unwrap()
}

/// A folder with everything that an experiment names.
pub(crate) struct Sandbox {
    root: PathBuf,
    /// Removes the folder in the end.
    _folder: Option<tempfile::TempDir>,
}

/// An experiment that was run, and what it printed.
pub(crate) struct Finished {
    pub(crate) sandbox: Sandbox,
    pub(crate) printed: String,
}

/// The small experiment under two protocols, run once for all tests that only read its results, which
/// are in `results/small`. The photos have masks, the right half of each.
pub(crate) fn finished() -> &'static Finished {
    static FINISHED: OnceLock<Finished> = OnceLock::new();
    FINISHED.get_or_init(|| {
        // A static is never dropped, so the folder has a fixed place and is emptied by the next run.
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("finished-experiment");
        if root.exists() {
            std::fs::remove_dir_all(&root).unwrap();
        }
        let sandbox = Sandbox {
            root,
            _folder: None,
        };
        sandbox.fill();
        sandbox.compare_foregrounds();
        let printed = sandbox.run("results");
        Finished { sandbox, printed }
    })
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let sandbox = Self::empty();
        sandbox.fill();
        sandbox
    }

    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            root: folder.path().to_path_buf(),
            _folder: Some(folder),
        }
    }

    /// A copy of the finished experiment, for tests that change it.
    pub(crate) fn finished() -> Self {
        let sandbox = Self::empty();
        copy(&finished().sandbox.root, &sandbox.root);
        sandbox
    }

    fn fill(&self) {
        let model = self.path("model");
        copy(
            &checkout().join("core-train/tests/fixtures/trajectory/model"),
            &model,
        );
        self.make_encoders();
        for concept in ["spotted-dog", "striped-cup"] {
            let from = checkout().join("experiments/concepts").join(concept);
            copy(&from, &self.path(concept));
        }
        self.write(
            "prompts.csv",
            "group,kind,prompt\n\
             animate,plain,a photo of a {}\n\
             animate,style,a red {} on the beach\n\
             inanimate,plain,a photo of a {}\n\
             inanimate,background,a {} on the beach\n",
        );
        self.write("recipe.toml", RECIPE);
        self.write("experiment.toml", EXPERIMENT);
    }

    /// Adds the masked protocol to the experiment, with a segmenter, and masks to the photos.
    pub(crate) fn compare_foregrounds(&self) {
        copy(
            &checkout().join("core-eval/tests/fixtures/score/clipseg"),
            &self.path("clipseg"),
        );
        self.edit(
            "protocol = \"dreambooth\"",
            "protocol = [\"dreambooth\", \"core\"]\nclipseg = \"clipseg\"",
        );
        let right_half =
            image::GrayImage::from_fn(64, 64, |x, _| image::Luma([(x / 32 * 255) as u8]));
        for concept in ["spotted-dog", "striped-cup"] {
            self.mask_photos(concept, &right_half);
        }
    }

    /// Gives every photo of a concept this mask.
    pub(crate) fn mask_photos(&self, concept: &str, mask: &image::GrayImage) {
        let masks = self.path(concept).join("masks");
        std::fs::create_dir_all(&masks).unwrap();
        for photo in 0..5 {
            mask.save(masks.join(format!("{photo}.png"))).unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
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
    fn make_encoders(&self) {
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
        model.save(&clip, Precision::Float32).unwrap();
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
        model.save(&dino, Precision::Float32).unwrap();
        ImageProcessor::vit(SIDE as u32).save(&dino).unwrap();
    }

    /// The files in a folder by name, but for those in `runs`, `images` and `features`.
    pub(crate) fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.path(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_file() {
                    files.insert(path.clone(), std::fs::read(&path).unwrap());
                } else if !["runs", "images", "features"].contains(&name.as_str()) {
                    folders.push(path);
                }
            }
        }
        files
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
            // The report says how long work took, by the times of files.
            let written = path.metadata().unwrap().modified().unwrap();
            let target = std::fs::File::options().write(true).open(&target).unwrap();
            target.set_modified(written).unwrap();
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
