//! Runs that PyTorch has recorded (fixtures from `generate_fixtures/golden.py`): metrics of every
//! step, final weights, and latents that are sampled with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use core_model::params::to_vec;
use core_model::pipeline::SamplingOptions;
use core_train::Run;
use serde::Deserialize;

use crate::common::{
    check_metrics, distance, facts, fixture, fixture_of, network, open, read, train, write,
};

/// The cases of one script.
#[derive(Deserialize)]
pub(crate) struct Golden {
    sampling: Sampling,
    cases: Vec<Case>,
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Deserialize)]
struct Sampling {
    steps: usize,
    guidance_scale: f64,
    prompt: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// The run file, `MODEL` standing for the path of the model.
    toml: String,
    metrics: Vec<BTreeMap<String, f64>>,
}

impl Golden {
    /// Those of a folder of fixtures.
    pub(crate) fn load(name: &str) -> Self {
        Self {
            folder: fixture_of(name, ""),
            ..facts(name)
        }
    }

    /// Fails unless the fixtures hold exactly these cases.
    pub(crate) fn assert_cases(&self, expected: &[&str]) {
        let names: Vec<&str> = self.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, expected);
    }

    /// The run file of a case.
    pub(crate) fn toml(&self, name: &str) -> String {
        let model = fixture("model").display().to_string();
        self.case(name).toml.replace("MODEL", &model)
    }

    fn case(&self, name: &str) -> &Case {
        let case = self.cases.iter().find(|case| case.name == name);
        case.unwrap_or_else(|| panic!("{name}"))
    }

    /// The recorded random numbers.
    pub(crate) fn replay(&self) -> PathBuf {
        self.folder.join("replay.safetensors")
    }

    /// Trains a case and compares everything; the largest relative differences are printed.
    #[allow(clippy::print_stdout, reason = "`--nocapture` shows how near it is")]
    pub(crate) fn check(&self, name: &str) {
        let case = self.case(name);
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "run.toml", &self.toml(name));
        let output = folder.path().join("out");
        train(&config, &output, Some(&self.replay()));
        let row = check_metrics(&output, &case.metrics);
        let weights = self.check_weights(name, &output);
        let latents = self.check_latents(name, &output);
        println!("{name}: rows {row:.1e}, weights {weights:.1e}, sampled latents {latents:.1e}");
    }

    /// What the stage trains is PyTorch's; all else keeps its bits.
    fn check_weights(&self, name: &str, output: &Path) -> f64 {
        let expected = open(&self.folder.join("final.safetensors"));
        let mut worst = 0.0_f64;
        let rows = expected.read_f32(&format!("{name}/rows")).unwrap();
        if let Some((rows, _)) = rows {
            let found = open(&output.join("learned_embeds.safetensors"));
            worst = worst.max(distance(&read(&found, "<robot>"), &rows, "rows"));
        }
        let trains_unet = expected
            .keys()
            .any(|key| key.starts_with(&format!("{name}/unet.")));
        assert_eq!(output.join("unet").exists(), trains_unet);
        if !trains_unet {
            return worst;
        }
        let file = "unet/diffusion_pytorch_model.safetensors";
        let (start, found) = (open(&fixture("model").join(file)), network(output, "unet"));
        for key in start.keys() {
            let mut values = read(&start, key);
            match expected.read_f32(&format!("{name}/unet.{key}")).unwrap() {
                Some((change, _)) => {
                    let pairs = values.iter_mut().zip(change);
                    pairs.for_each(|(value, change)| *value += change);
                    worst = worst.max(distance(&found[key], &values, key));
                }
                None => assert_eq!(found[key], values, "{key}"),
            }
        }
        worst
    }

    /// The run draws what PyTorch draws with its final weights.
    fn check_latents(&self, name: &str, output: &Path) -> f64 {
        let run = Run::open(output).unwrap();
        let base = run.base_model("cpu").unwrap();
        let pipeline = run.pipeline(&base).unwrap();
        let noise = open(&self.replay()).read_f32("init_latents").unwrap();
        let (values, shape) = noise.unwrap();
        let shape: [usize; 4] = shape.try_into().unwrap();
        let noise = Tensor::from_data(TensorData::new(values, shape), &base.device);
        let prompt = run.phrase().fill(&self.sampling.prompt);
        let [cond, uncond] = [prompt, String::new()].map(|p| pipeline.encode_prompts(&[p]));
        let options = SamplingOptions {
            kind: None,
            num_inference_steps: self.sampling.steps,
            guidance_scale: self.sampling.guidance_scale,
        };
        let latents = pipeline.sample(cond, uncond, noise, &options, &mut |_| {});
        let expected = read(
            &open(&self.folder.join("final.safetensors")),
            &format!("{name}/latents"),
        );
        distance(&to_vec(latents.unwrap()), &expected, "sampled latents")
    }
}
