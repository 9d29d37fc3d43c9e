//! Runs with a tuning-free encoder, on the tiny checkpoint of `fixtures/trajectory`: what they leave, what
//! they draw and what wrong ones are told.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use core_model::Network;
use core_model::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use core_model::device::parse_device;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::face2diffusion::{Face2DiffusionConfig, Mapping, MsidConfig};
use core_model::folder::ModelFolder;
use core_model::id_adapter::{
    IdAdapterConfig, IdAdapterFolder, save_face2diffusion, save_photomaker,
};
use core_model::image_processor::ImageProcessor;
use core_model::lora::Lora;
use core_model::params::{Added, Extension};
use core_model::personalized::PersonalizedModel;
use core_model::photomaker::PhotoMaker;
use core_model::pipeline::StableDiffusionPipeline;
use core_model::precision::Precision;
use core_train::tuning_free::photo_landmarks;
use tempfile::TempDir;

use crate::common::{fixture, photos, write};
use crate::generate::Command;

/// The width of the tiny checkpoint's text encoder.
const WIDTH: usize = 16;

fn vit() -> DinoModel {
    let config = DinoConfig {
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 32,
        patch_size: 16,
        ..DinoConfig::default()
    };
    DinoModel::init(&config, 1, &parse_device("cpu").unwrap()).unwrap()
}

/// A change of the U-Net's first query, of values that are not 0.
fn lora() -> Lora {
    let device = parse_device("cpu").unwrap();
    let folder = ModelFolder::new(fixture("model"));
    let model = StableDiffusionPipeline::load(&folder, &device)
        .unwrap()
        .model;
    let query = |name: &&str| name.starts_with("unet.") && name.ends_with("attn2.to_q.weight");
    let layer = |model: &PersonalizedModel| {
        let mut names: Vec<String> = model
            .names()
            .keys()
            .filter(query)
            .map(String::from)
            .collect();
        names.sort();
        names[0].trim_end_matches(".weight").to_string()
    };
    let extension = Extension {
        added: Added::LowRank {
            rank: 2,
            scale: 1.0,
        },
        layers: BTreeSet::from([layer(&model)]),
        seed: 0,
    };
    let mut lora = Lora::of_model(&model.extended(extension).unwrap(), 2.0);
    for layer in lora.layers.values_mut() {
        layer.up.values.fill(0.25);
    }
    lora
}

fn photomaker(folder: &Path, width: usize) {
    let device = parse_device("cpu").unwrap();
    let network = PhotoMaker::around(vit(), width, 3, &device).unwrap();
    save_photomaker(folder, &network, &lora()).unwrap();
}

fn face2diffusion(folder: &Path) {
    let config = Face2DiffusionConfig {
        msid: MsidConfig::of_vit(vit().config(), &[0, 1]),
        exp_dim: 3,
        text_width: WIDTH,
    };
    let device = parse_device("cpu").unwrap();
    vit()
        .save(&folder.join("msid"), Precision::Float16)
        .unwrap();
    let mapping = Mapping::init(&config, 3, &device).unwrap();
    save_face2diffusion(folder, &config, &mapping).unwrap();
}

/// A folder with three photos, both encoders, and a run file for one of them with these lines.
struct Sandbox(TempDir);

impl Sandbox {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        photos(&folder.path().join("photos"));
        photomaker(&folder.path().join("photomaker"), WIDTH);
        face2diffusion(&folder.path().join("face2diffusion"));
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, recipe: &str, encoder: &str, keys: &str) -> PathBuf {
        let text = format!(
            "{recipe}\n[adapter]\npath = {encoder:?}\n{keys}\n[model]\npath = {:?}\n[concept]\n\
             name = \"robot\"\nimages = \"photos\"\nsuper_category = \"dog\"\n",
            fixture("model")
        );
        write(self.0.path(), "run.toml", &text)
    }

    fn run(&self, name: &str, words: &[&str]) -> Result<PathBuf, String> {
        let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
        program.arg("train").arg(self.path("run.toml")).args(words);
        let output = program
            .arg("--output")
            .arg(self.path(name))
            .output()
            .unwrap();
        assert!(!self.path(&format!("{name}.partial")).exists());
        match output.status.success() {
            true => Ok(self.path(name)),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }

    fn photomaker(&self, name: &str, keys: &str) -> PathBuf {
        self.write("phrase = \"{class}\"", "photomaker", keys);
        self.run(name, &[]).unwrap()
    }

    fn face2diffusion(&self, name: &str) -> PathBuf {
        self.write("num_vectors = 2", "face2diffusion", "");
        self.run(name, &[]).unwrap()
    }

    /// What training says of a file that cannot be.
    fn refused(&self, recipe: &str, encoder: &str, keys: &str) -> String {
        self.write(recipe, encoder, keys);
        self.run("refused", &[]).unwrap_err()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// The latents of three steps on a prompt.
fn latents(run: &Path, prompt: &str, more: &[&str]) -> Vec<f32> {
    let run = run.to_str().unwrap();
    let words = ["--run", run, "--prompt", prompt, "--steps", "3"];
    let command = Command::new(&words).with(more);
    let command = command.with_file("--save-latents", "out.safetensors");
    command.run().unwrap();
    command.latents("out.safetensors").0
}

fn error(run: &Path, prompt: &str) -> String {
    Command::new(&["--run", run.to_str().unwrap(), "--prompt", prompt]).error()
}

#[test]
fn a_run_holds_what_the_encoder_made_of_the_photos_and_no_metrics() {
    let sandbox = Sandbox::new();
    for (run, rows) in [
        (sandbox.photomaker("all", ""), 3),
        (sandbox.photomaker("two", "photos = 2"), 2),
        (sandbox.face2diffusion("vectors"), 2),
    ] {
        let files = ["config.toml", "environment.json", "id_embeds.safetensors"];
        assert_eq!(names(&run), files);
        let file = Checkpoint::open(&run.join("id_embeds.safetensors"), |k| Some(k.into()));
        let file = file.unwrap();
        assert_eq!(file.info("id_embeds").unwrap().shape, [rows, WIDTH]);
        let text = fs::read_to_string(run.join("environment.json")).unwrap();
        assert!(text.contains("\"adapter.json\": "), "{text}");
        let again = core_train::RunConfig::load(&run.join("config.toml"), &[]).unwrap();
        assert!(again.stages.is_empty() && again.adapter.is_some());
    }
}

#[test]
fn photos_are_fused_after_the_share_of_steps_with_the_text_alone() {
    let sandbox = Sandbox::new();
    let prompt = "a photo of a dog";
    let late = sandbox.photomaker("late", "start_merge = 1.0");
    let soon = sandbox.photomaker("soon", "start_merge = 0.0");
    // At 1.0 no step of three sees a photo: only the LoRA acts, in every step.
    let text_alone = latents(&late, prompt, &[]);
    assert_ne!(text_alone, latents(&soon, prompt, &[]));
    let model = fixture("model");
    let words = [
        "--model",
        model.to_str().unwrap(),
        "--prompt",
        prompt,
        "--steps",
        "3",
    ];
    let base = Command::new(&words).with_file("--save-latents", "out.safetensors");
    base.run().unwrap();
    let base = base.latents("out.safetensors").0;
    assert_ne!(text_alone, base);
    assert_eq!(latents(&late, prompt, &["--lora-scale", "0"]), base);
    // A negative prompt with the class word is text alone.
    let negative = ["--negative-prompt", "a dog beside a dog"];
    assert_ne!(
        latents(&soon, prompt, &negative),
        latents(&soon, prompt, &[])
    );
}

#[test]
fn vectors_of_a_face_stand_where_the_token_does() {
    let sandbox = Sandbox::new();
    let run = sandbox.face2diffusion("vectors");
    let [person, same, other] = [
        "a photo of a <robot>",
        "a photo of a <robot>",
        "a photo of a dog",
    ]
    .map(|prompt| latents(&run, prompt, &[]));
    assert_eq!(person, same);
    assert_ne!(person, other);
}

#[test]
fn prompts_that_do_not_fit_the_photos_are_refused_with_the_reason() {
    let sandbox = Sandbox::new();
    let run = sandbox.photomaker("run", "");
    assert_says(&error(&run, "a red beach"), &["no class word `dog`"]);
    assert_says(&error(&run, "a dog and a dog"), &["`dog` 2 times"]);
    let long = "a photo of a dog on a red beach in the snow a photo";
    assert_says(&error(&run, long), &["3 photos", "16 tokens", "photos fit"]);
}

#[test]
fn photos_and_encoders_that_do_not_fit_are_refused_by_key() {
    let sandbox = Sandbox::new();
    let class = "phrase = \"{class}\"";
    let message = sandbox.refused(class, "photomaker", "photos = 4");
    assert_says(&message, &["adapter.photos", "is 4", "3 photos"]);
    photomaker(&sandbox.path("wide"), 24);
    let message = sandbox.refused(class, "wide", "");
    assert_says(&message, &["24 values", "have 16", "another base model"]);
    let message = sandbox.refused(class, "photos", "");
    assert_says(&message, &["photos", "adapter.json"]);
    let message = sandbox.refused("", "photomaker", "");
    assert_says(&message, &["phrase", "phrase = \"{class}\""]);
    let message = sandbox.refused("", "face2diffusion", "");
    assert_says(&message, &["num_vectors", "num_vectors = 2"]);
    let two = "num_vectors = 2";
    let message = sandbox.refused(two, "face2diffusion", "start_merge = 0.1");
    assert_says(&message, &["adapter.start_merge", "only PhotoMaker"]);
    let message = sandbox.refused(class, "photomaker", "start_merge = 1.5");
    assert_says(&message, &["adapter.start_merge", "from 0 to 1"]);
    let stages = "[[stages]]\ntrain = [\"embedding\"]\nsteps = 1\nbatch_size = 1\n\
                  learning_rate = 1e-2\nprompts = [\"a {}\"]\n";
    let message = sandbox.refused(class, "photomaker", stages);
    assert_says(&message, &["stages", "[adapter]"]);
    assert!(!sandbox.path("refused").exists());
}

fn aligned_fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core-model/tests/fixtures");
    folder.join("alignment").join(name)
}

/// A Face2Diffusion with the image size and the norm heads of the published one: the small one of core-model's
/// tests, whose patches are stretched from 8 to 56 pixels.
fn published_face2diffusion(folder: &Path) {
    let device = parse_device("cpu").unwrap();
    fs::create_dir_all(folder).unwrap();
    let small = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../core-model/tests/fixtures/id-adapters/face2diffusion");
    let adapter = IdAdapterFolder::open(&small).unwrap();
    let IdAdapterConfig::Face2Diffusion(mut config) = adapter.config().clone() else {
        panic!("another kind");
    };
    assert!(config.msid.norm_heads && config.msid.patch_size == 8);
    (config.msid.image_size, config.msid.patch_size) = (112, 56);
    config.text_width = WIDTH;
    let file = Checkpoint::open(&small.join("msid.pt"), |key| Some(key.into())).unwrap();
    let keys = file
        .keys()
        .filter(|key| !key.ends_with("num_batches_tracked"));
    let tensors = keys.map(|key| {
        let (mut values, mut shape) = file.read_f32(key).unwrap().unwrap();
        if key == "patch_embed.proj.weight" {
            let stretched = |index: usize| {
                let (row, column) = (index / 56 % 56, index % 56);
                values[index / (56 * 56) * 64 + row / 7 * 8 + column / 7] / 49.0
            };
            values = (0..values.len() * 49).map(stretched).collect();
            shape[2..].fill(56);
        }
        TensorToWrite {
            name: key.to_string(),
            shape,
            values,
        }
    });
    let tensors = tensors.collect();
    let path = folder.join("msid.safetensors");
    let mapping = Mapping::init(&config, 3, &device).unwrap();
    save_face2diffusion(folder, &config, &mapping).unwrap();
    save_tensors(&path, tensors, Precision::Float32, &[]).unwrap();
}

/// What the encoder of a run made of the photos.
fn id_embeds(run: &Path) -> Vec<f32> {
    let path = run.join("id_embeds.safetensors");
    let file = Checkpoint::open(&path, |key| Some(key.into())).unwrap();
    file.read_f32("id_embeds").unwrap().unwrap().0
}

#[test]
fn the_published_face2diffusion_reads_faces_aligned_by_their_landmarks() {
    let sandbox = Sandbox::new();
    let (photos, encoder) = (sandbox.path("photos"), sandbox.path("face2diffusion"));
    fs::remove_dir_all(&photos).unwrap();
    fs::remove_dir_all(&encoder).unwrap();
    fs::create_dir(&photos).unwrap();
    published_face2diffusion(&encoder);
    for name in ["0.png", "landmarks.csv"] {
        fs::copy(aligned_fixture("photo").join(name), photos.join(name)).unwrap();
    }
    let aligned = id_embeds(&sandbox.face2diffusion("aligned"));
    let run = sandbox.path("run.toml");
    let config = core_train::RunConfig::load(&run, &[]).unwrap();
    assert!(photo_landmarks(&config).unwrap().is_some());

    // The crop of OpenCV, with a file that says how it is prepared, is not aligned again.
    ImageProcessor::vit(112).save(&encoder).unwrap();
    let whole = id_embeds(&sandbox.face2diffusion("whole"));
    fs::remove_file(photos.join("landmarks.csv")).unwrap();
    fs::copy(aligned_fixture("face2diffusion.png"), photos.join("0.png")).unwrap();
    assert_eq!(photo_landmarks(&config).unwrap(), None);
    let crop = id_embeds(&sandbox.face2diffusion("crop"));
    let difference = |other: &[f32]| {
        let pairs = crop.iter().zip(other);
        let largest = pairs.fold(0.0_f32, |all, (a, b)| all.max((a - b).abs()));
        largest / crop.iter().fold(0.0, |all, value| value.abs().max(all))
    };
    // Steps of 1/32 pixel at which the two warps of OpenCV round differently.
    assert!(difference(&aligned) < 2e-3, "{}", difference(&aligned));
    assert!(difference(&whole) > 2e-2, "{}", difference(&whole));
}

#[test]
fn photos_without_landmarks_are_refused_by_the_published_face2diffusion() {
    let sandbox = Sandbox::new();
    let encoder = sandbox.path("face2diffusion");
    fs::remove_dir_all(&encoder).unwrap();
    published_face2diffusion(&encoder);
    let refused = || sandbox.refused("num_vectors = 2", "face2diffusion", "");
    let parts = ["photos/landmarks.csv", "is missing", "5 points", "or 68"];
    assert_says(&refused(), &parts);
    let file = sandbox.path("photos/landmarks.csv");
    let header = "image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n";
    let row = |name: &str| format!("{name},20,24,42,23,31,35,23,45,40,44\n");
    let names = names(&sandbox.path("photos"));
    let photos: Vec<&String> = names.iter().filter(|name| name.ends_with(".png")).collect();
    assert_eq!(photos.len(), 3);
    let rows = format!("{header}{}{}", row(photos[0]), row(photos[1]));
    fs::write(&file, &rows).unwrap();
    let missing = format!("no row for the photo `{}`", photos[2]);
    assert_says(&refused(), &["landmarks.csv", &missing, "no face"]);
    assert!(!sandbox.path("refused").exists());
    // A photo that is not used needs none.
    sandbox.write("num_vectors = 2", "face2diffusion", "photos = 2");
    sandbox.run("two", &[]).unwrap();
}

#[test]
fn a_run_whose_encoder_was_replaced_is_refused() {
    let sandbox = Sandbox::new();
    let run = sandbox.photomaker("run", "");
    let device = parse_device("cpu").unwrap();
    let other = PhotoMaker::around(vit(), WIDTH, 4, &device).unwrap();
    save_photomaker(&sandbox.path("photomaker"), &other, &lora()).unwrap();
    let message = error(&run, "a photo of a dog");
    assert_says(
        &message,
        &["id_embeds.safetensors", "other weights", "again"],
    );
}

#[test]
fn a_dry_run_and_an_inspection_name_the_method() {
    let sandbox = Sandbox::new();
    sandbox.write("phrase = \"{class}\"", "photomaker", "photos = 2");
    let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
    program
        .arg("train")
        .arg(sandbox.path("run.toml"))
        .arg("--dry-run");
    let shown = String::from_utf8(program.output().unwrap().stdout).unwrap();
    assert_says(&shown, &["PhotoMaker of 2 photos", "nothing is trained"]);
    for (folder, parts) in [
        (
            "photomaker",
            ["of PhotoMaker", "width 16", "photomaker.safetensors: "],
        ),
        (
            "face2diffusion",
            ["of Face2Diffusion", "32 x 32", "mapping.safetensors: "],
        ),
    ] {
        let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
        program.args(["model", "inspect"]).arg(sandbox.path(folder));
        let shown = String::from_utf8(program.output().unwrap().stdout).unwrap();
        assert_says(&shown, &parts);
    }
}

#[test]
fn exports_say_why_they_are_not_possible() {
    let sandbox = Sandbox::new();
    for (run, parts) in [
        (
            sandbox.photomaker("person", ""),
            ["PhotoMaker", "generate --run"],
        ),
        (
            sandbox.face2diffusion("face"),
            ["position embedding", "generate --run"],
        ),
    ] {
        let mut program = assert_cmd::Command::cargo_bin("core-train").unwrap();
        program.arg("export").arg(run).arg(sandbox.path("exported"));
        let output = program.output().unwrap();
        assert!(!output.status.success());
        assert_says(&String::from_utf8(output.stderr).unwrap(), &parts);
        assert!(!sandbox.path("exported").exists());
    }
}
