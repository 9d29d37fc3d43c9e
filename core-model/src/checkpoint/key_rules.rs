//! The few spellings of one tensor name that published checkpoints use.

/// Maps a key of a file to its canonical spelling, or to `None` when it is not a weight.
pub type KeyRule = fn(&str) -> Option<String>;

/// Old and new attention names of the VAE: diffusers before and after 0.18.
const VAE_ATTENTION: [(&str, &str); 4] = [
    (".query.", ".to_q."),
    (".key.", ".to_k."),
    (".value.", ".to_v."),
    (".proj_attn.", ".to_out.0."),
];

/// The spelling that the networks of this crate ask for.
///
/// * `position_ids` buffers are no weights (transformers before 4.31 stored them).
/// * the VAE's `query`, `key`, `value`, `proj_attn` become `to_q`, `to_k`, `to_v`, `to_out.0`;
///   only under `attentions.`, where no other network of the family uses these names.
pub fn canonical(key: &str) -> Option<String> {
    if key.ends_with("position_ids") {
        return None;
    }
    let mut key = key.to_string();
    if key.contains("attentions.") {
        for (old, new) in VAE_ATTENTION {
            key = key.replace(old, new);
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn both_spellings_of_vae_attention_are_one() {
        for key in ["query.weight", "to_q.weight"] {
            assert_eq!(
                canonical(&format!("encoder.mid_block.attentions.0.{key}")).as_deref(),
                Some("encoder.mid_block.attentions.0.to_q.weight")
            );
        }
    }

    #[test]
    fn position_ids_are_no_weights() {
        assert_eq!(canonical("text_model.embeddings.position_ids"), None);
    }

    #[test]
    fn the_key_projection_of_a_vit_is_left_alone() {
        let key = "encoder.layer.0.attention.attention.query.weight";
        assert_eq!(canonical(key).as_deref(), Some(key));
    }
}
