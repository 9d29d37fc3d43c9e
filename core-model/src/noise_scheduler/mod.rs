//! Noise schedules: how training adds noise and how sampling takes it away again.
//!
//! Everything that depends on the schedule only (timesteps, coefficients) is computed on the host
//! when a scheduler is built and checked there, so a step is a few scaled additions of tensors
//! and cannot fail. Values follow the diffusers classes of the same names: the schedule itself is
//! made in float32 as theirs is, because 1 - alphas_cumprod at early timesteps shows it.

mod beta_schedule;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver;
mod euler;
mod multistep;
mod pndm;
mod spacing;
mod unipc;

use burn::tensor::Tensor;

pub use beta_schedule::{NoiseSchedule, PredictionType, TerminalSnr};
pub use config::SchedulerConfig;
pub use ddpm::DdpmScheduler;

use crate::error::{Error, Result};
use crate::named::named;

/// Turns noise into latents, one model call at a time.
pub trait Sampler {
    /// The timestep of every model call, first call first. Longer than the number of inference
    /// steps for methods that call the model more than once at the start.
    fn timesteps(&self) -> &[f32];

    /// The standard deviation of the noise that sampling starts from.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// What the model is to see in call `index` instead of the sample itself. Same shape.
    fn scale_model_input(&self, sample: Tensor<4>, _index: usize) -> Tensor<4> {
        sample
    }

    /// The sample after call `index`, which returned `model_output` for `sample`; all three
    /// [batch, channels, height, width]. Calls come in order, from 0 to the last timestep.
    fn step(&mut self, model_output: Tensor<4>, index: usize, sample: Tensor<4>) -> Tensor<4>;
}

/// Declares the samplers: names, diffusers classes, names in AUTOMATIC1111's web UI, lists in errors and
/// the construction of each come from this table.
macro_rules! samplers {
    ($($(#[$doc:meta])* $Kind:ident = $name:literal, $class:literal, $web_ui:literal => $Sampler:ty;)+) => {
        named! {
            "scheduler",
            /// The samplers of this crate.
            pub enum SchedulerKind {
                $($(#[$doc])* $Kind = $name,)+
            }
        }

        impl SchedulerKind {
            /// The diffusers class that computes the same.
            pub fn class_name(self) -> &'static str {
                match self {
                    $(Self::$Kind => $class,)+
                }
            }

            /// What AUTOMATIC1111's web UI and programs that read its settings call it.
            pub fn web_ui_name(self) -> &'static str {
                match self {
                    $(Self::$Kind => $web_ui,)+
                }
            }

            fn sampler(self, config: &SchedulerConfig, steps: usize) -> Result<Box<dyn Sampler>> {
                Ok(match self {
                    $(Self::$Kind => Box::new(<$Sampler>::new(config, steps)?),)+
                })
            }
        }
    };
}

samplers! {
    /// Deterministic DDIM (<https://arxiv.org/abs/2010.02502>, eta 0).
    Ddim = "ddim", "DDIMScheduler", "DDIM" => ddim::Ddim;
    /// Pseudo linear multistep (<https://arxiv.org/abs/2202.09778>).
    Pndm = "pndm", "PNDMScheduler", "PLMS" => pndm::Pndm;
    /// DPM-Solver++, multistep, second order (<https://arxiv.org/abs/2211.01095>).
    DpmppTwoM = "dpmpp-2m", "DPMSolverMultistepScheduler", "DPM++ 2M" => dpm_solver::DpmSolver;
    /// Euler steps in the sigma of Karras et al. (<https://arxiv.org/abs/2206.00364>).
    Euler = "euler", "EulerDiscreteScheduler", "Euler" => euler::Euler;
    /// UniPC, multistep predictor and corrector (<https://arxiv.org/abs/2302.04867>).
    UniPc = "unipc", "UniPCMultistepScheduler", "UniPC" => unipc::UniPc;
}

impl SchedulerKind {
    /// The sampler that a checkpoint names itself.
    ///
    /// # Errors
    /// [`Error::Config`] when its class is none of [`SchedulerKind::ALL`].
    pub fn of(config: &SchedulerConfig) -> Result<Self> {
        let class = config.class_name();
        let known = Self::ALL
            .into_iter()
            .find(|kind| kind.class_name() == class);
        known.ok_or_else(|| {
            let supported = Self::ALL.map(|kind| format!("{} ({})", kind.class_name(), kind));
            config.refuse(
                "_class_name",
                class,
                format!("{}; or choose one with --scheduler", supported.join(", ")),
            )
        })
    }

    /// This sampler with the values of `config`, whichever class wrote it; a key that is absent
    /// there takes the default of the diffusers class of this kind.
    ///
    /// # Errors
    /// [`Error::Config`] for values that this crate does not implement, and a number of steps
    /// that the schedule cannot make.
    pub fn build(
        self,
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Box<dyn Sampler>> {
        if num_inference_steps == 0 {
            return Err(Error::Invalid("sampling needs at least 1 step".into()));
        }
        self.sampler(config, num_inference_steps)
    }
}

/// `a x + b y`.
fn mix(a: f64, x: Tensor<4>, b: f64, y: Tensor<4>) -> Tensor<4> {
    x.mul_scalar(a) + y.mul_scalar(b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config(json: &str) -> SchedulerConfig {
        SchedulerConfig::from_json("scheduler_config.json", json).unwrap()
    }

    fn message(json: &str, kind: SchedulerKind, steps: usize) -> String {
        kind.build(&config(json), steps).err().unwrap().to_string()
    }

    #[test]
    fn a_checkpoint_chooses_its_own_class() {
        for kind in SchedulerKind::ALL {
            let json = format!(r#"{{"_class_name": "{}"}}"#, kind.class_name());
            assert_eq!(SchedulerKind::of(&config(&json)).unwrap(), kind);
            assert_eq!(kind.name().parse::<SchedulerKind>().unwrap(), kind);
        }
    }

    #[test]
    fn an_unsupported_class_is_refused_with_the_supported_ones() {
        let error = SchedulerKind::of(&config(r#"{"_class_name": "DDPMScheduler"}"#)).unwrap_err();
        let text = error.to_string();
        for part in [
            "scheduler_config.json",
            "DDPMScheduler",
            "DDIMScheduler",
            "dpmpp-2m",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        use SchedulerKind::{Ddim, DpmppTwoM, Euler, Pndm};
        for (json, kind, key) in [
            (r#"{"thresholding": true}"#, Ddim, "thresholding"),
            (r#"{"thresholding": true}"#, DpmppTwoM, "thresholding"),
            (r#"{"prediction_type": "sample"}"#, Pndm, "prediction_type"),
            (r#"{"beta_schedule": "sigmoid"}"#, Ddim, "beta_schedule"),
            (
                r#"{"timestep_spacing": "karras"}"#,
                Ddim,
                "timestep_spacing",
            ),
            (
                r#"{"use_exponential_sigmas": true}"#,
                DpmppTwoM,
                "use_exponential_sigmas",
            ),
            (r#"{"use_beta_sigmas": true}"#, Euler, "use_beta_sigmas"),
            (r#"{"solver_order": 3}"#, DpmppTwoM, "solver_order"),
            (
                r#"{"algorithm_type": "sde-dpmsolver++"}"#,
                DpmppTwoM,
                "algorithm_type",
            ),
            (
                r#"{"interpolation_type": "log_linear"}"#,
                Euler,
                "interpolation_type",
            ),
            (
                r#"{"num_train_timesteps": "many"}"#,
                Euler,
                "num_train_timesteps",
            ),
            (r#"{"beta_end": 2.0}"#, Euler, "beta_end"),
        ] {
            let text = message(json, kind, 10);
            assert!(text.contains(&format!("`{key}`")), "{key}: {text}");
        }
    }

    #[test]
    fn step_numbers_that_the_schedule_cannot_make_are_refused() {
        for kind in SchedulerKind::ALL {
            assert!(message("{}", kind, 0).contains("at least 1 step"));
            assert!(message("{}", kind, 1001).contains("1000"), "{kind}");
        }
        assert!(
            message(r#"{"steps_offset": 1}"#, SchedulerKind::Ddim, 1000).contains("steps_offset")
        );
        assert!(message("{}", SchedulerKind::Pndm, 3).contains("skip_prk_steps"));
        assert!(message("{}", SchedulerKind::DpmppTwoM, 1000).contains("repeat"));
    }

    #[test]
    fn predicting_noise_at_zero_signal_is_refused() {
        let json = r#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#;
        let text = message(json, SchedulerKind::Ddim, 10);
        assert!(text.contains("rescale_betas_zero_snr"), "{text}");
    }

    #[test]
    fn python_infinities_are_read() {
        let json =
            r#"{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity}"#;
        let sampler = SchedulerKind::DpmppTwoM.build(&config(json), 20).unwrap();
        assert_eq!(sampler.timesteps()[..2], [999.0, 949.0]);
    }

    #[test]
    fn every_number_of_trailing_steps_gives_that_many_calls() {
        let config = config(r#"{"timestep_spacing": "trailing"}"#);
        for steps in [1, 2, 3, 61, 103, 999, 1000] {
            let sampler = SchedulerKind::Ddim.build(&config, steps).unwrap();
            assert_eq!(sampler.timesteps().len(), steps);
            assert_eq!(sampler.timesteps()[0], 999.0);
            assert!(sampler.timesteps()[steps - 1] >= 0.0);
        }
    }
}
