//! What diffusers and transformers call the tensors of a checkpoint in the original layout.
//!
//! Stable Diffusion 1.x and 2.x have four levels of two residual blocks in U-Net and autoencoder;
//! the numbers below follow from that.

/// Residual blocks of a level.
const BLOCKS: usize = 2;

/// Levels.
const LEVELS: usize = 4;

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

/// A U-Net's key, without `model.diffusion_model.`.
pub(super) fn unet(key: &str) -> Option<String> {
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
        let (level, layer) = (
            index.checked_sub(1)? / (BLOCKS + 1),
            (index - 1) % (BLOCKS + 1),
        );
        let place = format!("down_blocks.{level}");
        return match (layer == BLOCKS, part) {
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
    let (level, layer) = (index / (BLOCKS + 1), index % (BLOCKS + 1));
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

/// An autoencoder's key, without `first_stage_model.`.
pub(super) fn vae(key: &str) -> Option<String> {
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
        let level = (LEVELS - 1).checked_sub(level)?;
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
