//! Sets of weights that are added to a model, LoRA and OFT, against PyTorch and PEFT (fixtures from
//! `generate_fixtures/adapters.py`), and their files in the forms of all tools.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_model::Precision;
use core_model::checkpoint::Checkpoint;
use core_model::lora::{LayerNames, Lora, LoraForm};
use core_model::noise_scheduler::SchedulerKind;
use core_model::params::to_vec;
use core_model::pipeline::{SamplingOptions, StableDiffusionPipeline};
use core_train::stepper::Stepper;
use core_train::{BaseModel, Run, RunConfig};
use serde::Deserialize;

use crate::common::{
    check_metrics, distance, facts, fixture, fixture_of, open, photos, read, train,
    train_step_by_step, write,
};

#[derive(Deserialize)]
struct Facts {
    steps: usize,
    batch_size: usize,
    super_category: String,
    prompt: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    toml: String,
    learning_rate: f64,
    max_grad_norm: f64,
    metrics: Vec<BTreeMap<String, f64>>,
}

fn adapters(name: &str) -> PathBuf {
    fixture_of("adapters", name)
}

impl Facts {
    fn load() -> Self {
        facts("adapters")
    }

    fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name == name).unwrap()
    }

    fn toml(&self, case: &Case) -> String {
        format!(
            "phrase = \"{{token}} {{class}}\"\nrare_token = \"red\"\n[model]\npath = {:?}\n[concept]\n\
             name = \"robot\"\nimages = \"absent\"\nsuper_category = {:?}\n[[stages]]\n\
             train = [{{ kind = {:?}, {} }}]\nsteps = {}\nbatch_size = {}\nlearning_rate = {:e}\n\
             prompts = [{:?}]\n[stages.optimizer]\nmax_grad_norm = {}\n",
            fixture("model"),
            self.super_category,
            case.kind,
            case.toml,
            self.steps,
            self.batch_size,
            case.learning_rate,
            self.prompt,
            case.max_grad_norm,
        )
    }

    fn run(&self, name: &str, folder: &Path) -> PathBuf {
        let case = self.case(name);
        let config = write(folder, &format!("{name}.toml"), &self.toml(case));
        let output = folder.join(name);
        train(
            &config,
            &output,
            Some(&adapters(&format!("{name}.safetensors"))),
        );
        output
    }

    /// Trains a case and compares everything; the largest relative differences are printed.
    #[allow(clippy::print_stdout, reason = "`--nocapture` shows how near it is")]
    fn check(&self, name: &str) {
        let folder = tempfile::tempdir().unwrap();
        let output = self.run(name, folder.path());
        // No vector is learned, so that its norm is not in the file.
        let mut metrics = self.case(name).metrics.clone();
        for row in &mut metrics {
            row.remove("embedding_norm");
        }
        let row = check_metrics(&output, &metrics);
        assert!(!output.join("unet").exists() && !output.join("text_encoder").exists());
        let file = match self.case(name).kind.as_str() {
            "oft" => "oft/adapter_model.safetensors",
            _ => "lora.safetensors",
        };
        let (found, expected) = (
            open(&output.join(file)),
            open(&adapters("final.safetensors")),
        );
        let start = format!("{name}/");
        let (mut compared, mut weights) = (0, 0.0_f64);
        for key in expected.keys().filter_map(|key| key.strip_prefix(&start)) {
            if key != "latents" {
                let spelled = spelled(&found, key);
                let (found, expected) = (
                    read(&found, &spelled),
                    read(&expected, &format!("{start}{key}")),
                );
                weights = weights.max(distance(&found, &expected, key));
                compared += 1;
            }
        }
        assert_eq!(compared, found.keys().count());
        let run = Run::open(&output).unwrap();
        let base = run.base_model("cpu").unwrap();
        let words = run.phrase().fill(&self.prompt);
        let latents = distance(
            &latents(&run.pipeline(&base).unwrap(), &words),
            &read(&expected, &format!("{start}latents")),
            "latents",
        );
        println!("{name}: rows {row:.1e}, weights {weights:.1e}, sampled latents {latents:.1e}");
    }
}

/// The key of a file in diffusers' first form that PEFT calls `key`, where it is in that form.
fn spelled(file: &Checkpoint, key: &str) -> String {
    let factor = match key.starts_with("text_encoder.") {
        true => ["lora_linear_layer.down", "lora_linear_layer.up"],
        false => ["lora.down", "lora.up"],
    };
    let first = key
        .replace("lora_A", factor[0])
        .replace("lora_B", factor[1]);
    match file.info(&first) {
        Some(_) => first,
        None => key.to_string(),
    }
}

/// Eight DDIM steps from the noise of the fixture.
fn latents(pipeline: &StableDiffusionPipeline, prompt: &str) -> Vec<f32> {
    let (noise, _) = open(&adapters("noise.safetensors"))
        .read_f32("latents")
        .unwrap()
        .unwrap();
    let noise = burn::tensor::TensorData::new(noise, [1, 4, 16, 16]);
    let noise = burn::tensor::Tensor::from_data(noise, &burn::tensor::Device::flex());
    let encode = |prompt: &str| pipeline.encode_prompts(&[prompt.to_string()]);
    let options = SamplingOptions {
        kind: Some(SchedulerKind::Ddim),
        num_inference_steps: 8,
        guidance_scale: 3.0,
    };
    let states = [encode(prompt), encode("")];
    let [cond, uncond] = states;
    to_vec(
        pipeline
            .sample(cond, uncond, noise, &options, &mut |_| ())
            .unwrap(),
    )
}

#[test]
fn lora_equals_peft() {
    Facts::load().check("lora");
}

#[test]
fn lora_with_a_text_encoder_equals_peft() {
    Facts::load().check("lora-text-encoder");
}

#[test]
fn lora_of_all_layers_and_convolutions_equals_peft() {
    Facts::load().check("lora-all");
}

#[test]
fn oft_equals_pytorch() {
    Facts::load().check("oft");
}

#[test]
fn coft_equals_pytorch_and_no_block_in_its_file_is_above_its_bound() {
    let facts = Facts::load();
    facts.check("coft");
    let folder = tempfile::tempdir().unwrap();
    let file = open(
        &facts
            .run("coft", folder.path())
            .join("oft/adapter_model.safetensors"),
    );
    let mut bound_is_met = 0;
    for key in file.keys() {
        let (values, shape) = file.read_f32(key).unwrap().unwrap();
        let side = if shape[1] == 1 { 2.0 } else { 4.0_f32 };
        let bound = 2e-3 * side * side / 2.0;
        for block in values.chunks(shape[1]) {
            // A triangle holds each pair of entries of S once.
            let norm = (2.0 * block.iter().map(|v| v * v).sum::<f32>()).sqrt();
            assert!(norm <= bound * 1.0001, "{key}: {norm} above {bound}");
            bound_is_met += usize::from(norm > bound * 0.999);
        }
    }
    assert!(bound_is_met > 0, "the constraint never mattered");
}

#[test]
fn every_case_of_the_fixtures_is_a_test() {
    let names: Vec<String> = Facts::load()
        .cases
        .into_iter()
        .map(|case| case.name)
        .collect();
    assert_eq!(
        names,
        ["lora", "lora-text-encoder", "lora-all", "oft", "coft"]
    );
}

#[test]
fn a_lora_is_the_same_in_the_form_of_every_tool() {
    let (facts, folder) = (Facts::load(), tempfile::tempdir().unwrap());
    for name in ["lora", "lora-text-encoder", "lora-all"] {
        let output = facts.run(name, folder.path());
        let run = Run::open(&output).unwrap();
        let base = run.base_model("cpu").unwrap();
        let names = LayerNames::of_model(&base.pipeline.model);
        let lora = Lora::load(&output.join("lora.safetensors"), &names).unwrap();
        let first = if name == "lora-all" {
            LoraForm::Peft
        } else {
            LoraForm::Diffusers
        };
        assert_eq!(
            lora.form, first,
            "diffusers names only the projections of attention"
        );
        for form in LoraForm::WRITTEN {
            let path = folder
                .path()
                .join(format!("{name}-{}.safetensors", form.name()));
            lora.save(&path, form, Precision::Float32).unwrap();
            let again = Lora::load(&path, &names).unwrap();
            assert_eq!(again.layers, lora.layers, "{name}: {form}");
        }
        let kohya = open(&folder.path().join(format!("{name}-kohya.safetensors")));
        for (key, value) in [
            ("ss_network_module", "networks.lora"),
            ("ss_v2", "False"),
            ("ss_output_name", &format!("{name}-kohya")),
        ] {
            assert_eq!(kohya.metadata()[key], value);
        }
        assert_eq!(kohya.metadata()["sshs_model_hash"].len(), 64);
        assert!(
            kohya
                .keys()
                .all(|key| key.starts_with("lora_unet_") || key.starts_with("lora_te_text_model_"))
        );
    }
}

#[test]
fn strength_scales_the_change_of_a_run_and_of_a_file_alike() {
    let (facts, folder) = (Facts::load(), tempfile::tempdir().unwrap());
    let output = facts.run("lora-text-encoder", folder.path());
    let run = Run::open(&output).unwrap();
    let base = run.base_model("cpu").unwrap();
    let prompt = run.phrase().fill(&facts.prompt);
    let of_run = |scale| latents(&run.pipeline_at_scale(&base, scale).unwrap(), &prompt);
    let names = LayerNames::of_model(&base.pipeline.model);
    let lora = Lora::load(&output.join("lora.safetensors"), &names).unwrap();
    let of_file = |scale| {
        let mut pipeline = base.pipeline.clone();
        pipeline.model = lora.merge(pipeline.model, scale).unwrap();
        latents(&pipeline, &prompt)
    };
    assert_eq!(of_run(0.5), of_file(0.5));
    assert_ne!(of_run(0.5), of_run(1.0));
    assert_eq!(
        of_run(0.0),
        latents(&base.pipeline, &prompt),
        "no strength is the base model"
    );
}

/// Two stages on photos.
fn two_stages(folder: &Path, second: &str) -> PathBuf {
    photos(&folder.join("photos"));
    let text = format!(
        "seed = 4\n[model]\npath = {:?}\n[concept]\nname = \"robot\"\nimages = \"photos\"\n\
         super_category = \"toy dog\"\n[[stages]]\ntrain = [\"embedding\"]\nsteps = 2\nbatch_size = 2\n\
         learning_rate = 5e-3\nprompts = [\"a photo of a {{}}\"]\n[[stages]]\ntrain = [{second}]\n\
         steps = 3\nbatch_size = 1\ngradient_accumulation_steps = 2\nlearning_rate = 1e-2\n\
         prompts = [\"a photo of a {{}}\"]\n",
        fixture("model")
    );
    write(folder, "run.toml", &text)
}

#[test]
fn runs_with_an_added_set_resume_bit_for_bit_from_every_step_of_every_stage() {
    for (second, file) in [
        (
            "{ kind = \"lora\", text_encoder = true }",
            "lora.safetensors",
        ),
        (
            "{ kind = \"oft\", constraint = 1e-3 }",
            "oft/adapter_model.safetensors",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = two_stages(folder.path(), second);
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        train(&path, &whole, None);
        assert_eq!(train_step_by_step(&path, &parts), 5);
        for file in [file, "metrics.csv", "learned_embeds.safetensors"] {
            let digest = |output: &Path| core_model::files::sha256(&output.join(file)).unwrap();
            assert_eq!(digest(&parts), digest(&whole), "{second}: {file}");
        }
    }
}

#[test]
fn weights_of_the_base_model_keep_every_bit_beside_an_added_set() {
    for second in [
        "{ kind = \"lora\", targets = \"all\", text_encoder = true }",
        "\"oft\"",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = RunConfig::load(&two_stages(folder.path(), second), &[]).unwrap();
        let base = BaseModel::load(&config.model, "cpu").unwrap();
        let mut stepper = Stepper::new(&config, base.clone(), None).unwrap();
        while let Some(step) = stepper.next_step() {
            step.unwrap();
        }
        let of_networks = |name: &str| !name.starts_with("concept.");
        let before = base.pipeline.model.tensors(of_networks);
        let after = stepper.model().tensors(of_networks);
        let after: BTreeMap<&str, &[f32]> = after
            .iter()
            .map(|t| (t.name.as_str(), t.values.as_slice()))
            .collect();
        assert!(after.len() > before.len());
        for tensor in &before {
            assert_eq!(
                after[tensor.name.as_str()],
                tensor.values,
                "{}",
                tensor.name
            );
        }
    }
}

#[test]
fn sets_that_cannot_be_added_are_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    for (train, said) in [
        ("{ kind = \"lora\", rank = 0 }", "`rank` 0"),
        ("{ kind = \"lora\", targets = [\"to_x\"] }", "\"to_x\""),
        (
            "{ kind = \"lora\", targets = \"everything\" }",
            "cross_attention",
        ),
        ("{ kind = \"oft\", blocks = 3 }", "3 blocks"),
        ("{ kind = \"oft\", blocks = 8 }", "8 blocks"),
        ("{ kind = \"oft\", blocks = 0 }", "`blocks`"),
        ("{ kind = \"oft\", constraint = 0.0 }", "`constraint`"),
        ("\"unet\", \"cross_attention\"", "both train"),
    ] {
        let path = two_stages(folder.path(), train);
        let message = match RunConfig::load(&path, &[]) {
            Err(error) => error.to_string(),
            Ok(config) => {
                let base = BaseModel::load(&config.model, "cpu").unwrap();
                Stepper::new(&config, base, None).unwrap_err().to_string()
            }
        };
        assert!(message.contains(said), "{train}: {message}");
    }
}

#[test]
fn files_that_are_no_lora_of_the_model_are_refused_whole() {
    let (facts, folder) = (Facts::load(), tempfile::tempdir().unwrap());
    let output = facts.run("lora", folder.path());
    let run = Run::open(&output).unwrap();
    let base = run.base_model("cpu").unwrap();
    let names = LayerNames::of_model(&base.pipeline.model);
    let lora = output.join("lora.safetensors");
    let tensors = || {
        let file = open(&lora);
        let keys = file.keys();
        keys.map(|key| {
            let (values, shape) = file.read_f32(key).unwrap().unwrap();
            core_model::checkpoint::TensorToWrite {
                name: key.into(),
                shape,
                values,
            }
        })
        .collect::<Vec<_>>()
    };
    let path = folder.path().join("changed.safetensors");
    let refused = |change: &dyn Fn(&mut Vec<core_model::checkpoint::TensorToWrite>)| {
        let mut tensors = tensors();
        change(&mut tensors);
        core_model::checkpoint::save_tensors(&path, tensors, Precision::Float32, &[]).unwrap();
        let loaded = Lora::load(&path, &names);
        let merged = loaded.and_then(|lora| lora.merge(base.pipeline.model.clone(), 1.0));
        merged.unwrap_err().to_string()
    };
    let first = |tensors: &mut Vec<core_model::checkpoint::TensorToWrite>, name: &str| {
        tensors[0].name = name.into();
    };
    for (name, said) in [
        ("lora_unet_x.dora_scale", "DoRA"),
        ("lora_unet_mid_block.hada_w1_a", "LoHa"),
        (
            "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
            "SDXL",
        ),
        (
            "unet.down_blocks.7.attn1.to_q.lora.down.weight",
            "down_blocks.7",
        ),
    ] {
        let message = refused(&|tensors| first(tensors, name));
        assert!(message.contains(said), "{name}: {message}");
    }
    let message = refused(&|tensors| drop(tensors.remove(0)));
    assert!(message.contains("down factor"), "{message}");
    let message = refused(&|tensors| tensors[0].values[0] = f32::NAN);
    assert!(message.contains("NaN"), "{message}");
    // The factors of another model: twice as wide.
    let message = refused(&|tensors| {
        let down = &mut tensors[0];
        down.shape[1] *= 2;
        down.values = down.values.repeat(2);
    });
    assert!(message.contains("another base model"), "{message}");
}
