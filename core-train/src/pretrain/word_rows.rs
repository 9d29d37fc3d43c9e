//! The U-Net in training, with rows of the token table for words that its text encoder does not know yet.

use anyhow::Result;
use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;
use core_model::Network;
use core_model::params::ParamNames;
use core_model::text_encoder::TextEncoder;
use core_model::tokenizer::Tokenizer;
use core_model::unet::UNet2DConditionModel;

use crate::world::Category;

/// The key of the new rows in the state of a training.
const NEW_ROWS: &str = "new_rows";

/// Rows for all tokens of a tokenizer that are beyond a table [tokens, channels], each the mean of the rows of the nouns;
/// `None` when there are none.
pub(super) fn new_rows(tokenizer: &Tokenizer, table: Tensor<2>) -> Option<Tensor<2>> {
    let missing = tokenizer.vocab_size().checked_sub(table.dims()[0])?;
    let nouns = Category::THINGS.iter().map(|noun| {
        // The ids of a prompt begin with the start of text.
        let id = tokenizer.encode(noun.word()).ids[1];
        table.clone().narrow(0, id as usize, 1)
    });
    let mean = Tensor::cat(nouns.collect(), 0).mean_dim(0);
    (missing > 0).then(|| mean.repeat_dim(0, missing))
}

/// A U-Net, and new rows of the token table, which are trained with it: what Textual Inversion learns, for a word of
/// everybody. All old rows stay, and with them the bits of every old prompt.
#[derive(Module, Debug)]
pub(super) struct UnetAndRows {
    pub(super) unet: UNet2DConditionModel,
    /// [rows, channels]; absent when the text encoder knows all tokens.
    new_rows: Option<Param<Tensor<2>>>,
    #[module(skip)]
    pub(super) names: ParamNames,
}

impl UnetAndRows {
    /// With a row for every token that the text encoder does not know; see [`new_rows`].
    pub(super) fn new(
        unet: UNet2DConditionModel,
        tokenizer: &Tokenizer,
        text_encoder: &TextEncoder,
    ) -> Self {
        let mut names = unet.names().clone();
        let rows = new_rows(tokenizer, text_encoder.token_table());
        let new_rows = rows.map(|rows| {
            let shape = rows.dims();
            let param = Param::initialized(ParamId::new(), rows);
            names = names.with(&ParamNames::one(param.id, NEW_ROWS, shape.to_vec()));
            param
        });
        Self {
            unet,
            new_rows,
            names,
        }
    }

    /// The hidden states of captions, [batch, positions, channels].
    pub(super) fn encode(&self, text_encoder: &TextEncoder, captions: &[Vec<u32>]) -> Tensor<3> {
        text_encoder.forward(captions, self.new_rows.as_ref().map(Param::val))
    }

    /// The text encoder that knows the new words; `None` when there are none.
    ///
    /// # Errors
    /// Rows of another width than the table's.
    pub(super) fn grown(&self, text_encoder: &TextEncoder) -> Result<Option<TextEncoder>> {
        let rows = self.new_rows.as_ref().map(|rows| rows.val().inner());
        Ok(rows
            .map(|rows| text_encoder.with_more_tokens(rows))
            .transpose()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core_model::device::parse_device;
    use core_model::params::to_vec;
    use core_model::text_encoder::TextEncoderConfig;
    use core_model::unet::UNet2DConditionConfig;

    use super::*;

    /// A text encoder that knows `known` tokens, and a small U-Net.
    fn networks(known: usize) -> (Tokenizer, TextEncoder, UNet2DConditionModel) {
        let device = parse_device("cpu").unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/mini");
        let folder = std::path::Path::new(folder);
        let tokenizer = Tokenizer::from_dir(&folder.join("tokenizer")).unwrap();
        let config = TextEncoderConfig {
            vocab_size: known,
            ..TextEncoder::read_config(&folder.join("text_encoder/config.json")).unwrap()
        };
        let unet = folder.join("unet/config.json");
        let mut sizes: UNet2DConditionConfig = UNet2DConditionModel::read_config(&unet).unwrap();
        sizes.block_out_channels = vec![8, 8, 8];
        (
            tokenizer,
            TextEncoder::init(&config, 1, &device).unwrap(),
            UNet2DConditionModel::init(&sizes, 2, &device).unwrap(),
        )
    }

    #[test]
    fn new_rows_begin_as_the_mean_of_the_nouns_and_become_the_end_of_the_table() {
        let known = networks(1).0.vocab_size() - 3;
        let (tokenizer, text_encoder, unet) = networks(known);
        let network = UnetAndRows::new(unet, &tokenizer, &text_encoder);
        let grown = network.grown(&text_encoder).unwrap().unwrap();
        assert_eq!(grown.config().vocab_size, known + 3);
        let table = to_vec(grown.token_table());
        let old = to_vec(text_encoder.token_table());
        assert_eq!(table[..old.len()], old);
        let width = text_encoder.config().hidden_size;
        let row = |word: &str| {
            let id = tokenizer.encode(word).ids[1] as usize;
            &old[id * width..(id + 1) * width]
        };
        for channel in 0..width {
            let nouns = Category::THINGS
                .iter()
                .map(|noun| row(noun.word())[channel]);
            let mean = nouns.sum::<f32>() / Category::THINGS.len() as f32;
            for new in table[old.len()..].chunks(width) {
                assert!((new[channel] - mean).abs() < 1e-6);
            }
        }
        // The last three ids are in no table yet, and are in the grown one.
        let prompt = vec![vec![660, known as u32 + 1, 661]];
        let before = to_vec(network.encode(&text_encoder, &prompt));
        assert_eq!(before, to_vec(grown.forward(&prompt, None)));
    }

    #[test]
    fn a_text_encoder_that_knows_all_tokens_stays_as_it_is() {
        let known = networks(1).0.vocab_size();
        let (tokenizer, text_encoder, unet) = networks(known);
        let network = UnetAndRows::new(unet, &tokenizer, &text_encoder);
        assert!(network.grown(&text_encoder).unwrap().is_none());
        assert!(network.names.keys().all(|key| key != NEW_ROWS));
    }
}
