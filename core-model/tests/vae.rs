//! The autoencoder against diffusers' (tests/generate_fixtures/vae.py).
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use common::{Golden, fixture};
use core_model::params::{ParamNames, set_trainable};
use core_model::vae::AutoencoderKl;

struct Gradient<'a>(&'a Golden, &'a ParamNames, &'a Gradients, usize);

impl ModuleVisitor for Gradient<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let key = format!("grad.{}", self.1.name(param.id));
        if self.0.contains(&key) {
            self.0.check(&key, param.val().grad(self.2).unwrap());
            self.3 += 1;
        }
    }
}

#[test]
fn moments_pictures_and_gradients_are_those_of_diffusers() {
    // The second case also has the attention keys of old diffusers.
    for case in ["with-quant-conv", "without-quant-conv"] {
        let golden = Golden::open(&format!("vae/{case}"));
        let vae = AutoencoderKl::load(&fixture(&format!("vae/{case}")), &Device::flex()).unwrap();
        let names = vae.names().clone();
        let vae = set_trainable(vae, &names, |_| true);
        let posterior = vae.encode(golden.tensor("pixels"));
        golden.check("mean", posterior.mean.clone().inner());
        golden.check("logvar", posterior.logvar.clone().inner());
        let decoded = vae.decode(posterior.sample(golden.tensor("noise")));
        golden.check("decoded", decoded.clone().inner());
        let loss = (decoded * golden.tensor::<4>("weight")).mean() + posterior.logvar.mean();
        let grads = loss.backward();
        let mut visitor = Gradient(&golden, &names, &grads, 0);
        vae.visit(&mut visitor);
        assert_eq!(visitor.3, 2);
    }
}
