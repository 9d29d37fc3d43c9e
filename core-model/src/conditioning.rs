//! What the cross-attention layers of a U-Net read of the prompts.

use burn::tensor::{DType, Tensor};

use crate::ops;

/// The text encoder's hidden states as the cross-attention layers read them: the same for all
/// layers, as in most methods, or other states for every layer, and for keys and values.
#[derive(Debug, Clone)]
pub struct Conditioning {
    states: States,
}

#[derive(Debug, Clone)]
enum States {
    /// [batch, tokens, channels]: keys and values of every layer.
    Shared(Box<Tensor<3>>),
    /// Other states for every layer.
    PerLayer(Box<PerLayer>),
}

/// Layers are counted from `first_layer` in the order in which they are passed.
#[derive(Debug, Clone)]
struct PerLayer {
    /// [layers, batch, tokens, channels].
    keys: Tensor<4>,
    /// The same shape; the keys' states where absent.
    values: Option<Tensor<4>>,
    first_layer: usize,
}

impl From<Tensor<3>> for Conditioning {
    /// Hidden states [batch, tokens, channels] that every layer reads.
    fn from(states: Tensor<3>) -> Self {
        Self {
            states: States::Shared(Box::new(states)),
        }
    }
}

impl From<PerLayer> for Conditioning {
    fn from(states: PerLayer) -> Self {
        Self {
            states: States::PerLayer(Box::new(states)),
        }
    }
}

impl Conditioning {
    /// Hidden states [layers, batch, tokens, channels] for every cross-attention layer, in the
    /// order in which the layers are passed (down, middle, up); `values` where values are made
    /// of other states than keys.
    ///
    /// # Panics
    /// When keys and values differ in shape.
    pub fn per_layer(keys: Tensor<4>, values: Option<Tensor<4>>) -> Self {
        if let Some(values) = &values {
            assert_eq!(keys.dims(), values.dims(), "one value for every key");
        }
        PerLayer {
            keys,
            values,
            first_layer: 0,
        }
        .into()
    }

    /// What keys and what values of a layer are made of, [batch, tokens, channels] each.
    ///
    /// # Panics
    /// When there are no states for this layer.
    pub fn of_layer(&self, layer: usize) -> [Tensor<3>; 2] {
        match &self.states {
            States::Shared(states) => [Tensor::clone(states), Tensor::clone(states)],
            States::PerLayer(states) => {
                let PerLayer {
                    keys,
                    values,
                    first_layer,
                } = &**states;
                let [_, batch, tokens, channels] = keys.dims();
                let pick = |states: &Tensor<4>| {
                    let at = layer - first_layer;
                    let one = states.clone().narrow(0, at, 1);
                    one.reshape([batch, tokens, channels])
                };
                [pick(keys), pick(values.as_ref().unwrap_or(keys))]
            }
        }
    }

    /// The same states in another number format.
    pub(crate) fn cast(self, to: DType) -> Self {
        self.map(
            |states| ops::cast(states, to),
            |states| ops::cast(states, to),
        )
    }

    /// The number of prompts.
    pub fn batch(&self) -> usize {
        match &self.states {
            States::Shared(states) => states.dims()[0],
            States::PerLayer(states) => states.keys.dims()[1],
        }
    }

    /// One prompt for every sample of a batch; as many prompts as samples stay as they are.
    ///
    /// # Panics
    /// When there are neither one nor `batch` prompts.
    #[must_use]
    pub fn repeat(self, batch: usize) -> Self {
        let given = self.batch();
        assert!(
            given == batch || given == 1,
            "{given} prompts for a batch of {batch}"
        );
        if given == batch {
            return self;
        }
        self.map(
            |states| states.repeat_dim(0, batch),
            |states| states.repeat_dim(1, batch),
        )
    }

    /// The prompts of several conditionings as one batch.
    ///
    /// # Panics
    /// When there are none, or they differ in layers, tokens or channels.
    pub fn cat(parts: Vec<Self>) -> Self {
        let layers = parts.iter().find_map(|part| match &part.states {
            States::Shared(_) => None,
            States::PerLayer(states) => Some(states.keys.dims()[0]),
        });
        let Some(layers) = layers else {
            let states = parts.into_iter().filter_map(|part| match part.states {
                States::Shared(states) => Some(*states),
                States::PerLayer(_) => None,
            });
            return Tensor::cat(states.collect(), 0).into();
        };
        let (keys, values) = parts.into_iter().map(|part| part.spread(layers)).unzip();
        Self::per_layer(Tensor::cat(keys, 1), Some(Tensor::cat(values, 1)))
    }

    /// The same values off the tape.
    #[must_use]
    pub fn inner(self) -> Self {
        self.map(Tensor::inner, Tensor::inner)
    }

    /// Keys and values of `layers` layers.
    fn spread(self, layers: usize) -> (Tensor<4>, Tensor<4>) {
        match self.states {
            States::Shared(states) => {
                let all = states.unsqueeze_dim::<4>(0).repeat_dim(0, layers);
                (all.clone(), all)
            }
            States::PerLayer(states) => {
                let PerLayer { keys, values, .. } = *states;
                (keys.clone(), values.unwrap_or(keys))
            }
        }
    }

    fn map(
        self,
        shared: impl Fn(Tensor<3>) -> Tensor<3>,
        per_layer: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Self {
        match self.states {
            States::Shared(states) => shared(*states).into(),
            States::PerLayer(states) => PerLayer {
                keys: per_layer(states.keys),
                values: states.values.map(per_layer),
                first_layer: states.first_layer,
            }
            .into(),
        }
    }

    /// The states that all layers share, if they do.
    pub fn shared(&self) -> Option<&Tensor<3>> {
        match &self.states {
            States::Shared(states) => Some(states),
            States::PerLayer(_) => None,
        }
    }

    /// Keys and then values of `count` layers as one tensor, [2 x count, batch, tokens, channels].
    pub(crate) fn stacked(&self, first: usize, count: usize) -> Tensor<4> {
        let layers = first..first + count;
        let pairs: Vec<_> = layers.map(|layer| self.of_layer(layer)).collect();
        let keys = pairs.iter().map(|[keys, _]| keys.clone());
        let values = pairs.iter().map(|[_, values]| values.clone());
        let all = keys
            .chain(values)
            .map(|states| states.unsqueeze_dim::<4>(0));
        Tensor::cat(all.collect(), 0)
    }

    /// The reverse of [`stacked`](Self::stacked).
    pub(crate) fn unstacked(states: Tensor<4>, first: usize) -> Self {
        let count = states.dims()[0] / 2;
        PerLayer {
            keys: states.clone().narrow(0, 0, count),
            values: Some(states.narrow(0, count, count)),
            first_layer: first,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::params::to_vec;

    fn states(value: f32, batch: usize) -> Tensor<3> {
        Tensor::full([batch, 2, 1], value, &Device::flex())
    }

    #[test]
    fn shared_states_are_keys_and_values_of_every_layer() {
        let conditioning = Conditioning::from(states(3.0, 1)).repeat(2);
        for layer in [0, 7] {
            for read in conditioning.of_layer(layer) {
                assert_eq!(to_vec(read), [3.0; 4]);
            }
        }
    }

    #[test]
    fn a_batch_of_shared_and_layered_prompts_keeps_each_prompt_its_states() {
        let layered = Tensor::cat(
            vec![
                states(1.0, 1).unsqueeze_dim::<4>(0),
                states(2.0, 1).unsqueeze_dim(0),
            ],
            0,
        );
        let values = layered.clone() + 10.0;
        let layered = Conditioning::per_layer(layered, Some(values));
        let both = Conditioning::cat(vec![states(0.0, 1).into(), layered]);
        assert_eq!(both.batch(), 2);
        let [keys, values] = both.of_layer(1);
        assert_eq!(to_vec(keys), [0.0, 0.0, 2.0, 2.0]);
        assert_eq!(to_vec(values), [0.0, 0.0, 12.0, 12.0]);
    }

    #[test]
    fn stacked_layers_keep_their_numbers() {
        let keys = Tensor::<1>::from_floats([0.0, 1.0, 2.0, 3.0], &Device::flex());
        let keys = keys.reshape([4, 1, 1, 1]);
        let all = Conditioning::per_layer(keys.clone(), Some(keys * 10.0));
        let some = Conditioning::unstacked(all.stacked(2, 2), 2);
        assert_eq!(some.of_layer(3).map(to_vec), [[3.0], [30.0]]);
    }
}
