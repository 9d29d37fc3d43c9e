//! CLIPSeg (Lüddecke & Ecker 2022), `CLIPSegForImageSegmentation` in transformers: a CLIP model
//! and a small decoder that says where in an image the thing is that a text names.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use serde::{Deserialize, Serialize};

use crate::clip::{ClipConfig, ClipModel};
use crate::config::{apply_config_dicts, from_object, read_object};
use crate::error::{Error, Result};
use crate::network::{Class, Network};
use crate::nn::{Conv2d, Conv2dConfig, ConvTranspose2d, Linear};
use crate::params::{ParamBuilder, ParamNames};
use crate::vit::{Activation, CLIP_KEYS, Norm, Transformer, TransformerConfig};

/// The decoder's part of a CLIPSeg `config.json`; absent keys take transformers' defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipSegDecoderConfig {
    /// The layers of CLIP's image tower that are looked at, from 0, the lowest first.
    pub extract_layers: Vec<usize>,
    /// Channels of the decoder.
    pub reduce_dim: usize,
    /// Heads of a decoder layer.
    pub decoder_num_attention_heads: usize,
    /// Channels inside the feed-forward part of a decoder layer.
    pub decoder_intermediate_size: usize,
    /// The decoder layer before which the text enters.
    pub conditional_layer: usize,
    /// Whether patches become pixels in three convolutions instead of one.
    pub use_complex_transposed_convolution: bool,
}

impl Default for ClipSegDecoderConfig {
    fn default() -> Self {
        Self {
            extract_layers: vec![3, 6, 9],
            reduce_dim: 64,
            decoder_num_attention_heads: 4,
            decoder_intermediate_size: 2048,
            conditional_layer: 0,
            use_complex_transposed_convolution: false,
        }
    }
}

/// `config.json` of a `CLIPSegForImageSegmentation`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ClipSegConfig {
    /// The CLIP model.
    #[serde(flatten)]
    pub clip: ClipConfig,
    /// The decoder.
    #[serde(flatten)]
    pub decoder: ClipSegDecoderConfig,
}

impl ClipSegConfig {
    /// Refuses images of a size that patches do not fill.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the sizes, in pixels.
    pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
        let patch = self.clip.vision_config.patch_size;
        let fits = |side: usize| side > 0 && side.is_multiple_of(patch);
        if fits(height) && fits(width) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "preprocessor_config.json makes images of {height} by {width} pixels; expected \
             multiples of the `patch_size` {patch}"
        )))
    }

    /// Refuses decoders that do not fit the CLIP model.
    fn check(&self) -> Result<()> {
        let layers = self.clip.vision_config.num_hidden_layers;
        let decoder = &self.decoder;
        let extract = &decoder.extract_layers;
        let inside = extract.last().is_some_and(|layer| *layer < layers);
        if !inside || !extract.is_sorted_by(|a, b| a < b) {
            return Err(Error::Invalid(format!(
                "`extract_layers` is {extract:?}; expected rising numbers below the {layers} \
                 layers of `vision_config`"
            )));
        }
        let patch = self.clip.vision_config.patch_size;
        if decoder.use_complex_transposed_convolution && (patch / 4).pow(2) != patch {
            return Err(Error::Invalid(format!(
                "`use_complex_transposed_convolution` enlarges patches by {0} times {0}, but \
                 `patch_size` is {patch}; expected 16",
                patch / 4
            )));
        }
        Ok(())
    }
}

/// From patches to pixels.
#[derive(Module, Debug)]
struct Enlarge {
    /// The two convolutions before the last one, of the complex kind.
    before: Option<(Conv2d, ConvTranspose2d)>,
    last: ConvTranspose2d,
}

impl Enlarge {
    fn new(config: &ClipSegConfig, pb: &ParamBuilder) -> Result<Self> {
        let channels = config.decoder.reduce_dim;
        let patch = config.clip.vision_config.patch_size;
        if !config.decoder.use_complex_transposed_convolution {
            let last = ConvTranspose2d::new(channels, 1, patch, pb)?;
            return Ok(Self { before: None, last });
        }
        let (side, half) = (patch / 4, channels / 2);
        let same = Conv2d::new(Conv2dConfig::same(channels, channels, 3), &pb.pp(0))?;
        let first = ConvTranspose2d::new(channels, half, side, &pb.pp(2))?;
        Ok(Self {
            before: Some((same, first)),
            last: ConvTranspose2d::new(half, 1, side, &pb.pp(4))?,
        })
    }

    /// [batch, channels, rows, columns] to [batch, 1, height, width].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.before {
            Some((same, first)) => relu(first.forward(relu(same.forward(x)))),
            None => x,
        };
        self.last.forward(x)
    }
}

#[derive(Module, Debug)]
struct Decoder {
    film_mul: Linear,
    film_add: Linear,
    reduces: Vec<Linear>,
    layers: Transformer,
    transposed_convolution: Enlarge,
}

impl Decoder {
    fn new(config: &ClipSegConfig, pb: &ParamBuilder) -> Result<Self> {
        config.check()?;
        let (decoder, vision) = (&config.decoder, &config.clip.vision_config);
        let (shared, channels) = (config.clip.projection_dim, decoder.reduce_dim);
        let depth = decoder.extract_layers.len();
        let sizes = TransformerConfig {
            hidden_size: channels,
            intermediate_size: decoder.decoder_intermediate_size,
            num_hidden_layers: depth,
            num_attention_heads: decoder.decoder_num_attention_heads,
            layer_norm_eps: vision.layer_norm_eps,
            hidden_act: Activation::Relu,
            qkv_bias: true,
            causal: false,
            norm: Norm::After,
            scaled: false,
            gated: false,
        };
        let reduces = (0..depth)
            .map(|index| {
                let pb = pb.pp("reduces").pp(index);
                Linear::new(vision.hidden_size, channels, true, &pb)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            film_mul: Linear::new(shared, channels, true, &pb.pp("film_mul"))?,
            film_add: Linear::new(shared, channels, true, &pb.pp("film_add"))?,
            reduces,
            layers: Transformer::new(&sizes, &CLIP_KEYS, &pb.pp("layers"))?,
            transposed_convolution: Enlarge::new(config, &pb.pp("transposed_convolution"))?,
        })
    }

    /// What CLIP saw, each [batch, 1 + rows * columns, channels], the lowest layer first, and what
    /// it read, [batch, shared], to logits [batch, height, width].
    fn forward(
        &self,
        seen: Vec<Tensor<3>>,
        text: Tensor<2>,
        conditional_layer: usize,
        [rows, columns]: [usize; 2],
    ) -> Tensor<3> {
        let mut output: Option<Tensor<3>> = None;
        for (index, (seen, reduce)) in seen.into_iter().rev().zip(&self.reduces).enumerate() {
            let mut hidden = reduce.forward(seen);
            if let Some(before) = output {
                hidden = hidden + before;
            }
            if index == conditional_layer {
                let factor = self.film_mul.forward(text.clone()).unsqueeze_dim::<3>(1);
                let shift = self.film_add.forward(text.clone()).unsqueeze_dim::<3>(1);
                hidden = hidden * factor + shift;
            }
            output = Some(self.layers.layer(index, hidden));
        }
        let Some(output) = output else {
            unreachable!("`extract_layers` was checked to hold a layer");
        };
        let [batch, tokens, channels] = output.dims();
        let patches = output.narrow(1, 1, tokens - 1).swap_dims(1, 2);
        let patches = patches.reshape([batch, channels, rows, columns]);
        let logits = self.transposed_convolution.forward(patches);
        let [_, _, height, width] = logits.dims();
        logits.reshape([batch, height, width])
    }
}

/// CLIP and decoder.
#[derive(Module, Debug)]
pub struct ClipSegModel {
    clip: ClipModel,
    decoder: Decoder,
    #[module(skip)]
    config: ClipSegConfig,
    #[module(skip)]
    names: ParamNames,
}

impl Network for ClipSegModel {
    type Config = ClipSegConfig;

    fn class(_config: &ClipSegConfig) -> Class {
        Class::Transformers("CLIPSegForImageSegmentation", "clipseg")
    }

    fn new(config: &ClipSegConfig, pb: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            clip: ClipModel::part(&config.clip, &pb.pp("clip"))?,
            decoder: Decoder::new(config, &pb.pp("decoder"))?,
            config: config.clone(),
            names: pb.finish()?,
        })
    }

    fn read_config(path: &Path) -> Result<ClipSegConfig> {
        let mut object = read_object(path)?;
        apply_config_dicts(&mut object);
        from_object(path, object)
    }

    fn config(&self) -> &ClipSegConfig {
        &self.config
    }

    fn names(&self) -> &ParamNames {
        &self.names
    }
}

impl ClipSegModel {
    /// A fresh decoder on a CLIP model.
    ///
    /// # Errors
    /// A decoder that does not fit the model.
    pub fn on(clip: ClipModel, decoder: &ClipSegDecoderConfig, seed: u64) -> Result<Self> {
        let config = ClipSegConfig {
            clip: clip.config().clone(),
            decoder: decoder.clone(),
        };
        let pb = ParamBuilder::random(seed, &clip.device());
        let decoder = Decoder::new(&config, &pb.pp("decoder"))?;
        let below = clip.names().renamed(|key| format!("clip.{key}"));
        Ok(Self {
            names: below.with(&pb.finish()?),
            clip,
            decoder,
            config,
        })
    }

    /// Prompts of equal length to what the decoder is told of them, [batch, shared].
    pub fn text_features(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        self.clip.text_features(ids)
    }

    /// Preprocessed pixels [batch, 3, height, width] and features of a text for each of them
    /// [batch, shared] to logits [batch, height, width]: above 0 where the thing is.
    ///
    /// Images may have another size than CLIP's own; positions are interpolated.
    ///
    /// # Panics
    /// When patches do not fill the images.
    pub fn forward(&self, pixels: Tensor<4>, text: Tensor<2>) -> Tensor<3> {
        let [_, _, height, width] = pixels.dims();
        let patch = self.config.clip.vision_config.patch_size;
        let layers = &self.config.decoder.extract_layers;
        let seen = self.clip.hidden_states(pixels, layers);
        self.decoder.forward(
            seen,
            text,
            self.config.decoder.conditional_layer,
            [height / patch, width / patch],
        )
    }
}
