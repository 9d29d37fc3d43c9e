//! Directional Textual Inversion against PyTorch (fixtures from `generate_fixtures/direction.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_train::RunConfig;
use serde::Deserialize;

use crate::common::{
    Drawing, assert_close, check_metrics, draw, facts, fixture, fixture_of, open, photos, read,
    train, train_step_by_step, write,
};

#[derive(Deserialize)]
struct Facts {
    steps: usize,
    batch_size: usize,
    super_category: String,
    prompt: String,
    drawn: String,
    sampling_steps: usize,
    guidance_scale: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    scale: serde_json::Value,
    kappa: f64,
    beta: f64,
    learning_rate: f64,
    num_vectors: usize,
    length: f64,
    metrics: Vec<BTreeMap<String, f64>>,
}

fn file(name: &str) -> PathBuf {
    fixture_of("direction", name)
}

impl Facts {
    fn load() -> Self {
        facts("direction")
    }

    fn toml(&self, case: &Case, images: &str, steps: usize) -> String {
        format!(
            "[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = {images:?}\n\
             super_category = {:?}\nnum_vectors = {}\n[[stages]]\n\
             train = [{{ kind = \"embedding\", direction = {{ scale = {} }} }}]\nsteps = {steps}\n\
             batch_size = {}\nlearning_rate = {}\nprompts = [{:?}]\n[stages.optimizer]\n\
             kind = \"spherical_sgd\"\nkappa = {}\nbeta = {}\n",
            fixture("model"),
            self.super_category,
            case.num_vectors,
            case.scale,
            self.batch_size,
            case.learning_rate,
            self.prompt,
            case.kappa,
            case.beta,
        )
    }

    fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name == name).unwrap()
    }

    fn check(&self, name: &str) {
        let case = self.case(name);
        let folder = tempfile::tempdir().unwrap();
        let text = self.toml(case, "absent", self.steps);
        let config = write(folder.path(), "run.toml", &text);
        let output = folder.path().join("out");
        train(&config, &output, Some(&fixture("replay.safetensors")));
        check_metrics(&output, &case.metrics);

        let learned = open(&output.join("learned_embeds.safetensors"));
        let expected = open(&file("final.safetensors"));
        let rows = read(&expected, &format!("{name}/rows"));
        assert_close(&read(&learned, "<robot>"), &rows, "rows");
        let scale: f64 = learned.metadata()["scale"].parse().unwrap();
        assert!((scale / case.length - 1.0).abs() < 1e-5, "{scale}");

        let drawing = Drawing {
            prompt: &self.drawn.replace("{}", "<robot>"),
            steps: self.sampling_steps,
            guidance_scale: self.guidance_scale,
            init_latents: &file("final.safetensors"),
        };
        let drawn = draw(&output, &drawing, &[]);
        assert_close(
            &drawn,
            &read(&expected, &format!("{name}/drawn")),
            "latents",
        );
    }
}

#[test]
fn a_direction_at_the_mean_length_equals_pytorch() {
    Facts::load().check("mean");
}

#[test]
fn two_directions_at_the_smallest_length_with_a_moment_equal_pytorch() {
    Facts::load().check("min");
}

#[test]
fn a_direction_at_the_largest_length_without_a_pull_to_its_start_equals_pytorch() {
    Facts::load().check("max");
}

#[test]
fn directions_at_a_length_of_ones_own_equal_pytorch() {
    Facts::load().check("number");
}

#[test]
fn the_length_of_the_vectors_stays_what_it_is() {
    let facts = Facts::load();
    let case = facts.case("number");
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let config = write(folder.path(), "run.toml", &facts.toml(case, "photos", 40));
    let output = folder.path().join("out");
    train(&config, &output, None);
    let mut reader = csv::Reader::from_path(output.join("metrics.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let column = header.iter().position(|name| name == "embedding_norm");
    // The norm of two vectors of length 1.75 together.
    let expected = 1.75 * 2.0_f64.sqrt();
    for record in reader.records() {
        let norm: f64 = record.unwrap()[column.unwrap()].parse().unwrap();
        assert!((norm / expected - 1.0).abs() < 1e-6, "{norm}");
    }
}

#[test]
fn a_direction_resumes_to_the_same_bytes() {
    let facts = Facts::load();
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let text = facts.toml(facts.case("min"), "photos", 5);
    let path = write(folder.path(), "run.toml", &text);
    let whole = folder.path().join("whole");
    train(&path, &whole, None);
    let parts = folder.path().join("parts");
    assert_eq!(train_step_by_step(&path, &parts), 5);
    for name in ["metrics.csv", "learned_embeds.safetensors"] {
        let bytes = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(bytes(&parts), bytes(&whole), "{name}");
    }
}

#[test]
fn what_a_direction_cannot_be_combined_with_is_refused_by_key() {
    let facts = Facts::load();
    let folder = tempfile::tempdir().unwrap();
    let text = facts.toml(facts.case("mean"), "absent", 5);
    let path = write(folder.path(), "run.toml", &text);
    let refused = |set: &str| -> String {
        let config = RunConfig::load(&path, &[set.to_string()]);
        config.unwrap_err().to_string()
    };
    let direction = "{kind='embedding',direction={scale='mean'}}";
    for (set, parts) in [
        (
            "stages.0.optimizer.betas=[0.9,0.99]",
            ["optimizer.betas", "no key of \"spherical_sgd\""],
        ),
        (
            "stages.0.optimizer.eps=1e-6",
            ["optimizer.eps", "leave it out"],
        ),
        (
            "stages.0.optimizer.weight_decay=0.0",
            ["optimizer.weight_decay", "leave it out"],
        ),
        ("stages.0.optimizer.beta=1.0", ["optimizer.beta", "below 1"]),
        (
            "stages.0.optimizer.kappa=-1.0",
            ["optimizer.kappa", "0 or more"],
        ),
        ("stages.0.optimizer={}", ["optimizer.kind", "spherical_sgd"]),
        (
            "stages.0.train=['embedding']",
            ["optimizer.kind", "direction = "],
        ),
        (
            "stages.0.rescale={from=1,to=2}",
            ["stages.0.rescale", "leave the key out"],
        ),
        (
            "stages.0.train.0.direction.scale=0",
            ["direction.scale", "above 0"],
        ),
        (
            "stages.0.train.0.direction.scale='median'",
            ["mean", "number"],
        ),
        (
            &format!("stages.0.train=[{direction},'unet']"),
            ["stages.0.train", "other sets"],
        ),
    ] {
        let message = refused(set);
        for part in parts {
            assert!(message.contains(part), "{set}: {message}");
        }
    }
    let message = refused("stages.0.optimizer={kappa=1e-4}");
    assert!(message.contains("no key of \"adamw\""), "{message}");
    // A direction in a later stage would find vectors of another length.
    let stage = "name='first'\ntrain=['unet']\nsteps=1\nbatch_size=1\nlearning_rate=1e-4\nprompts=['a {}']\n";
    let later = text.replace("[[stages]]", &format!("[[stages]]\n{stage}[[stages]]"));
    let path = write(folder.path(), "later.toml", &later);
    let message = RunConfig::load(&path, &[]).unwrap_err().to_string();
    assert!(
        message.contains("stages.1.train") && message.contains("first stage"),
        "{message}"
    );
}
