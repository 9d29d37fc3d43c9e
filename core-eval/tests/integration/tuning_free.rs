//! Variants that learn nothing: encoders that were trained before read the photos.

use std::collections::BTreeMap;
use std::path::Path;

use core_model::Network;
use core_model::Precision;
use core_model::device::parse_device;
use core_model::dino::{DinoConfig, DinoModel};
use core_model::face2diffusion::{Face2DiffusionConfig, Mapping, MsidConfig};
use core_model::folder::ModelFolder;
use core_model::id_adapter::{save_face2diffusion, save_photomaker};
use core_model::image_processor::ImageProcessor;
use core_model::lora::Lora;
use core_model::params::{Added, Extension};
use core_model::photomaker::PhotoMaker;
use core_model::pipeline::StableDiffusionPipeline;

use crate::common::{Sandbox, copy, core_eval};

/// The width of the tiny model's text encoder.
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

/// Writes a PhotoMaker that was trained from this seed.
fn write_photomaker(sandbox: &Sandbox, seed: u64) {
    let device = parse_device("cpu").unwrap();
    let base = ModelFolder::new(sandbox.path("model"));
    let model = StableDiffusionPipeline::load(&base, &device).unwrap().model;
    let mut queries = model
        .names()
        .keys()
        .filter(|name| name.ends_with("attn2.to_q.weight"));
    let layer = queries
        .next()
        .unwrap()
        .trim_end_matches(".weight")
        .to_string();
    drop(queries);
    let extension = Extension {
        added: Added::LowRank {
            rank: 2,
            scale: 1.0,
        },
        layers: [layer].into(),
        seed,
    };
    let lora = Lora::of_model(&model.extended(extension).unwrap(), 2.0);
    let network = PhotoMaker::around(vit(), WIDTH, seed, &device).unwrap();
    save_photomaker(&sandbox.path("photomaker"), &network, &lora).unwrap();
}

/// The small experiment with an encoder of each kind in the place of two variants.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    write_photomaker(&sandbox, 3);
    let device = parse_device("cpu").unwrap();
    let folder = sandbox.path("face2diffusion");
    let config = Face2DiffusionConfig {
        msid: MsidConfig::of_vit(vit().config(), &[0, 1]),
        exp_dim: 3,
        text_width: WIDTH,
    };
    vit()
        .save(&folder.join("msid"), Precision::Float16)
        .unwrap();
    let mapping = Mapping::init(&config, 3, &device).unwrap();
    save_face2diffusion(&folder, &config, &mapping).unwrap();
    sandbox.write(
        "photomaker.toml",
        "phrase = \"{class}\"\n[adapter]\npath = \"photomaker\"\nphotos = 2\n",
    );
    sandbox.write(
        "face2diffusion.toml",
        "num_vectors = 2\n[adapter]\npath = \"face2diffusion\"\n",
    );
    sandbox.edit(
        "name = \"CoRe again\"\n",
        "name = \"PhotoMaker\"\nrecipe = \"photomaker.toml\"\n\n[[variants]]\n\
         name = \"Face2Diffusion\"\nrecipe = \"face2diffusion.toml\"\n",
    );
    sandbox
}

fn source(sandbox: &Sandbox, variant: &str) -> String {
    let file = format!("results/small/images/{variant}/spotted-dog/0/source.json");
    let source: serde_json::Value = serde_json::from_str(&sandbox.read(&file)).unwrap();
    source["run"].as_str().unwrap().to_string()
}

#[test]
fn tuning_free_variants_are_drawn_and_scored_beside_trained_ones() {
    let sandbox = sandbox();
    let printed = sandbox.run("results");
    assert!(
        printed.contains("10 runs trained, 48 images generated"),
        "{printed}"
    );
    let run = source(&sandbox, "PhotoMaker");
    let folder = sandbox.path(&format!("results/small/runs/{run}"));
    assert!(folder.join("id_embeds.safetensors").is_file());
    assert!(!folder.join("metrics.csv").exists());
    let scores = sandbox.read("results/small/scores.csv");
    for variant in ["PhotoMaker", "Face2Diffusion"] {
        assert_eq!(
            scores.matches(&format!("\n{variant},")).count(),
            8,
            "{scores}"
        );
        for table in ["tokens.csv", "curves.csv"] {
            let text = sandbox.read(&format!("results/small/{table}"));
            assert!(!text.contains(variant), "{table}");
        }
    }
    // Nothing is left to do, and the report is made again without the encoders' help.
    let again = sandbox.run("results");
    let nothing = "networks that ran: none, everything was there";
    assert!(again.contains(nothing), "{again}");

    // Another encoder gives another run; a photo beyond those that are used does not.
    let face2diffusion = source(&sandbox, "Face2Diffusion");
    let photo = sandbox.path("spotted-dog/4.png");
    let other = image::open(sandbox.path("spotted-dog/0.png"))
        .unwrap()
        .fliph();
    other.save(photo).unwrap();
    sandbox.run("results");
    assert_eq!(source(&sandbox, "PhotoMaker"), run);
    assert_ne!(source(&sandbox, "Face2Diffusion"), face2diffusion);
    write_photomaker(&sandbox, 4);
    sandbox.run("results");
    assert_ne!(source(&sandbox, "PhotoMaker"), run);
}

#[test]
fn a_judge_that_is_a_variants_own_encoder_is_told_at_the_start_and_beside_the_checks() {
    let sandbox = sandbox();
    let judge = sandbox.path("judge");
    copy(&sandbox.path("face2diffusion/msid"), &judge);
    ImageProcessor::vit(32).save(&judge).unwrap();
    let files = "judge/model.safetensors = msid/model.safetensors";
    let parts = ["DINO flatters Face2Diffusion", files, "another network"];
    let run = |more: &[&str]| {
        let mut command = sandbox.command("results");
        command.args(["--variant", "Face2Diffusion", "--variant", "PhotoMaker"]);
        let output = command.args(more).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        errors
    };
    // Of another network nothing is said.
    assert!(!run(&["--dry-run"]).contains("flatters"));
    sandbox.edit("dino = \"dino\"", "dino = \"judge\"");
    for more in [&["--dry-run"][..], &[]] {
        let errors = run(more);
        assert_eq!(errors.matches("flatters").count(), 1, "{errors}");
        for part in [
            parts[0],
            "judge/model.safetensors",
            "face2diffusion/msid/model.safetensors",
        ] {
            assert!(errors.contains(part), "{part}: {errors}");
        }
    }
    let checks = sandbox.read("results/small/checks.csv");
    let row = format!("\nFace2Diffusion,dino_own_encoder,1.0,{files}\n");
    assert_eq!(checks.matches("own_encoder").count(), 1, "{checks}");
    assert!(checks.contains(&row), "{checks}");
    for file in ["table.md", "summary.json"] {
        let text = sandbox.read(&format!("results/small/{file}"));
        for part in parts {
            assert!(text.contains(part), "{file}: {part}: {text}");
        }
        assert_eq!(text.matches("flatters").count(), 1, "{file}");
    }
}

#[test]
fn a_dry_run_without_the_model_knows_a_judge_that_is_a_variants_own_encoder() {
    let sandbox = sandbox();
    std::fs::remove_dir_all(sandbox.path("model")).unwrap();
    let judge = "identity = \"face2diffusion/msid\"";
    sandbox.edit(
        "dino = \"dino\"",
        &format!("dino = \"dino\"\n{judge}\nclipseg = \"clipseg\""),
    );
    let output = sandbox
        .command("results")
        .arg("--dry-run")
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("identity flatters Face2Diffusion"),
        "{errors}"
    );
}

/// The shipped checkpoints as the doctor finds them in a folder.
fn doctor(models: &Path) -> BTreeMap<String, (bool, String)> {
    let mut command = core_eval();
    command.args(["doctor", "--json", "--models"]).arg(models);
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checkpoints = report["checkpoints"].as_array().unwrap().iter();
    let found = checkpoints.map(|checkpoint| {
        let path = Path::new(checkpoint["path"].as_str().unwrap());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = checkpoint["description"].as_str().unwrap().to_string();
        (name, (checkpoint["usable"].as_bool().unwrap(), text))
    });
    found.collect()
}

#[test]
fn the_doctor_names_encoders_and_tells_those_without_weights_or_of_another_base() {
    let sandbox = sandbox();
    let models = sandbox.path("models");
    for (from, to) in [
        ("model", "mini"),
        ("photomaker", "mini-photomaker"),
        ("face2diffusion", "mini-face2diffusion"),
        ("face2diffusion", "without-weights"),
    ] {
        copy(&sandbox.path(from), &models.join(to));
    }
    std::fs::remove_file(models.join("without-weights/mapping.safetensors")).unwrap();
    let published = "models/published/adapter.json";
    sandbox.write(published, "{\"kind\": \"photomaker\"}");
    let found = doctor(&models);
    let says = |name: &str, usable: bool, parts: &[&str]| {
        let (of, text) = &found[name];
        assert_eq!(*of, usable, "{name}: {text}");
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    let sizes = "for text encoders of width 16 and photos of 32 x 32 pixels";
    says("mini-photomaker", true, &["PhotoMaker", sizes, "fits mini"]);
    let face2diffusion = ["Face2Diffusion", sizes, "fits mini"];
    says("mini-face2diffusion", true, &face2diffusion);
    let missing = ["Face2Diffusion", "no weights", "mapping.pt"];
    says("without-weights", false, &missing);
    let missing = ["width 2048", "no weights", "photomaker-v1.bin"];
    says("published", false, &missing);

    let adapter = models.join("mini-face2diffusion");
    let wide = Face2DiffusionConfig {
        msid: MsidConfig::of_vit(vit().config(), &[0, 1]),
        exp_dim: 3,
        text_width: 24,
    };
    let mapping = Mapping::init(&wide, 3, &parse_device("cpu").unwrap()).unwrap();
    save_face2diffusion(&adapter, &wide, &mapping).unwrap();
    let (usable, text) = &doctor(&models)["mini-face2diffusion"];
    assert!(
        !usable && text.contains("makes vectors of 24 values"),
        "{text}"
    );
    std::fs::remove_dir_all(models.join("mini")).unwrap();
    let (usable, text) = &doctor(&models)["mini-face2diffusion"];
    assert!(*usable && text.contains("not compared with mini"), "{text}");
}

#[test]
fn prompts_and_photos_that_do_not_fit_are_refused_before_anything_is_trained() {
    let sandbox = sandbox();
    let failure = |sandbox: &Sandbox| Sandbox::failure(sandbox.command("results"));
    let prompts = sandbox.read("prompts.csv");
    sandbox.write(
        "prompts.csv",
        &prompts.replace("a photo of a {}", "a {} beside a dog"),
    );
    let message = failure(&sandbox);
    for part in ["concept `spotted-dog`", "`dog` 2 times"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    sandbox.write("prompts.csv", &prompts);
    let recipe = sandbox.read("photomaker.toml");
    sandbox.write(
        "photomaker.toml",
        &recipe.replace("photos = 2", "photos = 9"),
    );
    let message = failure(&sandbox);
    assert!(message.contains("adapter.photos` is 9"), "{message}");
    sandbox.write("photomaker.toml", &recipe);
    sandbox.edit("variant = \"no terms\"", "variant = \"PhotoMaker\"");
    let message = failure(&sandbox);
    for part in ["`PhotoMaker` learns none", "[adapter]"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!sandbox.path("results/small/runs").exists());
}
