//! What diffusers and transformers call the tensors of a checkpoint in the original layout.
//!
//! There the blocks of a U-Net are counted through all levels and the decoder's levels from the
//! lowest resolution up, so that names depend on how many there are.

use super::{UNET, VAE};

/// The numbers on which names depend; four levels of two blocks in Stable Diffusion 1.x and 2.x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// Residual blocks of a level of the U-Net, on the way down.
    pub(super) unet_blocks: usize,
    /// Levels of the autoencoder.
    pub(super) vae_levels: usize,
}

impl Counts {
    /// Read off all keys of a file.
    pub(super) fn of<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let (mut inputs, mut first_downsampler, mut vae_levels) = (0, None, 0);
        for key in keys {
            let input = key
                .strip_prefix(UNET)
                .and_then(|key| number(key.strip_prefix("input_blocks.")?));
            if let Some((index, rest)) = input {
                inputs = inputs.max(index);
                if rest.starts_with("0.op.") {
                    first_downsampler =
                        Some(first_downsampler.map_or(index, |first| index.min(first)));
                }
            }
            let level = key
                .strip_prefix(VAE)
                .and_then(|key| number(key.strip_prefix("decoder.up.")?));
            if let Some((level, _)) = level {
                vae_levels = vae_levels.max(level.saturating_add(1));
            }
        }
        // The first input block is the convolution before all levels.
        let unet_blocks = first_downsampler.map_or(inputs, |first| first.saturating_sub(1));
        Self {
            unet_blocks,
            vae_levels,
        }
    }
}

/// Renames the first of the endings that fits.
fn ending(key: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(theirs, ours)| {
        let start = key.strip_suffix(theirs)?;
        Some(format!("{start}{ours}"))
    })
}

/// Renames the first of the beginnings that fits.
fn beginning(key: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(theirs, ours)| {
        let rest = key.strip_prefix(theirs)?;
        Some(format!("{ours}{rest}"))
    })
}

/// Splits `12.rest` into number and rest.
fn number(key: &str) -> Option<(usize, &str)> {
    let (number, rest) = key.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// A U-Net's key, without `model.diffusion_model.`, for levels of so many residual blocks.
pub(super) fn unet(key: &str, blocks: usize) -> Option<String> {
    const TOP: [(&str, &str); 5] = [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
        ("input_blocks.0.0.", "conv_in."),
    ];
    if let Some(key) = beginning(key, &TOP) {
        return Some(key);
    }
    if let Some(rest) = key.strip_prefix("input_blocks.") {
        let (index, rest) = number(rest)?;
        let (part, rest) = number(rest)?;
        let index = index.checked_sub(1)?;
        let a_level = blocks.checked_add(1)?;
        let (level, layer) = (index / a_level, index % a_level);
        let place = format!("down_blocks.{level}");
        return match (layer == blocks, part) {
            (true, 0) => {
                let rest = rest.strip_prefix("op.")?;
                Some(format!("{place}.downsamplers.0.conv.{rest}"))
            }
            (false, 0) => resnet(rest).map(|rest| format!("{place}.resnets.{layer}.{rest}")),
            (false, 1) => Some(format!("{place}.attentions.{layer}.{rest}")),
            _ => None,
        };
    }
    if let Some(rest) = key.strip_prefix("middle_block.") {
        let (part, rest) = number(rest)?;
        return match part {
            0 | 2 => resnet(rest).map(|rest| format!("mid_block.resnets.{}.{rest}", part / 2)),
            1 => Some(format!("mid_block.attentions.0.{rest}")),
            _ => None,
        };
    }
    let (index, rest) = number(key.strip_prefix("output_blocks.")?)?;
    let (part, rest) = number(rest)?;
    let a_level = blocks.checked_add(1)?;
    let (level, layer) = (index / a_level, index % a_level);
    let place = format!("up_blocks.{level}");
    if let (1 | 2, Some(rest)) = (part, rest.strip_prefix("conv.")) {
        return Some(format!("{place}.upsamplers.0.conv.{rest}"));
    }
    match part {
        0 => resnet(rest).map(|rest| format!("{place}.resnets.{layer}.{rest}")),
        1 => Some(format!("{place}.attentions.{layer}.{rest}")),
        _ => None,
    }
}

/// The parts of a U-Net's residual block.
fn resnet(key: &str) -> Option<String> {
    const PARTS: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    beginning(key, &PARTS)
}

/// An autoencoder's key, without `first_stage_model.`, for so many levels.
pub(super) fn vae(key: &str, levels: usize) -> Option<String> {
    if key.starts_with("quant_conv.") || key.starts_with("post_quant_conv.") {
        return Some(key.to_string());
    }
    let (side, rest) = key.split_once('.')?;
    if !matches!(side, "encoder" | "decoder") {
        return None;
    }
    let rest = if let Some(rest) = rest.strip_prefix("mid.") {
        let (part, rest) = rest.split_once('.')?;
        match part {
            "block_1" => format!("mid_block.resnets.0.{}", shortcut(rest)),
            "block_2" => format!("mid_block.resnets.1.{}", shortcut(rest)),
            "attn_1" => format!("mid_block.attentions.0.{}", vae_attention(rest)?),
            _ => return None,
        }
    } else if let Some(rest) = rest.strip_prefix("down.") {
        let (level, rest) = number(rest)?;
        format!("down_blocks.{level}.{}", vae_level(rest, "downsample")?)
    } else if let Some(rest) = rest.strip_prefix("up.") {
        let (level, rest) = number(rest)?;
        let level = levels.checked_sub(level)?.checked_sub(1)?;
        format!("up_blocks.{level}.{}", vae_level(rest, "upsample")?)
    } else if let Some(rest) = rest.strip_prefix("norm_out.") {
        format!("conv_norm_out.{rest}")
    } else if rest.starts_with("conv_in.") || rest.starts_with("conv_out.") {
        rest.to_string()
    } else {
        return None;
    };
    Some(format!("{side}.{rest}"))
}

fn vae_level(key: &str, resize: &str) -> Option<String> {
    if let Some(rest) = key.strip_prefix("block.") {
        let (block, rest) = number(rest)?;
        return Some(format!("resnets.{block}.{}", shortcut(rest)));
    }
    let rest = key.strip_prefix(resize)?.strip_prefix('.')?;
    Some(format!("{resize}rs.0.{rest}"))
}

fn shortcut(key: &str) -> String {
    key.replace("nin_shortcut.", "conv_shortcut.")
}

fn vae_attention(key: &str) -> Option<String> {
    const PARTS: [(&str, &str); 5] = [
        ("norm.", "group_norm."),
        ("q.", "to_q."),
        ("k.", "to_k."),
        ("v.", "to_v."),
        ("proj_out.", "to_out.0."),
    ];
    beginning(key, &PARTS)
}

/// What becomes of one tensor of OpenCLIP's text tower.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenClip {
    /// It has another name.
    Renamed(String),
    /// Query, key and value one below the other: `layer` and `weight` or `bias`.
    QueryKeyValue(String, String),
    /// The projection and the temperature, which a generator does not use.
    Unused,
}

/// A key of OpenCLIP's text tower, without `cond_stage_model.model.`.
pub(super) fn open_clip(key: &str) -> Option<OpenClip> {
    const TOP: [(&str, &str); 4] = [
        (
            "positional_embedding",
            "text_model.embeddings.position_embedding.weight",
        ),
        (
            "token_embedding.weight",
            "text_model.embeddings.token_embedding.weight",
        ),
        ("ln_final.weight", "text_model.final_layer_norm.weight"),
        ("ln_final.bias", "text_model.final_layer_norm.bias"),
    ];
    const LAYER: [(&str, &str); 10] = [
        ("ln_1.weight", "layer_norm1.weight"),
        ("ln_1.bias", "layer_norm1.bias"),
        ("ln_2.weight", "layer_norm2.weight"),
        ("ln_2.bias", "layer_norm2.bias"),
        ("attn.out_proj.weight", "self_attn.out_proj.weight"),
        ("attn.out_proj.bias", "self_attn.out_proj.bias"),
        ("mlp.c_fc.weight", "mlp.fc1.weight"),
        ("mlp.c_fc.bias", "mlp.fc1.bias"),
        ("mlp.c_proj.weight", "mlp.fc2.weight"),
        ("mlp.c_proj.bias", "mlp.fc2.bias"),
    ];
    if matches!(key, "text_projection" | "logit_scale" | "attn_mask") {
        return Some(OpenClip::Unused);
    }
    if let Some((_, ours)) = TOP.iter().find(|(theirs, _)| *theirs == key) {
        return Some(OpenClip::Renamed((*ours).to_string()));
    }
    let (layer, rest) = number(key.strip_prefix("transformer.resblocks.")?)?;
    let place = format!("text_model.encoder.layers.{layer}");
    if let Some(kind) = rest.strip_prefix("attn.in_proj_") {
        return Some(OpenClip::QueryKeyValue(place, kind.to_string()));
    }
    let rest = ending(rest, &LAYER)?;
    Some(OpenClip::Renamed(format!("{place}.{rest}")))
}
