//! The network that tells foreground from background: CLIPSeg, asked for the concept's class word.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Int, Tensor};
use core_model::Network;
use core_model::clipseg::{ClipSegConfig, ClipSegModel};
use core_model::image_processor::{ImageProcessor, Rectangle};
use core_model::params::to_vec;
use core_model::tokenizer::Tokenizer;
use image::{GrayImage, Luma, RgbImage};
use indexmap::IndexSet;

/// A CLIPSeg folder with its preprocessing.
#[derive(Debug)]
pub struct Segmenter {
    network: ClipSegModel,
    processor: ImageProcessor,
    tokenizer: Tokenizer,
    device: Device,
}

impl Segmenter {
    /// Reads the folder.
    ///
    /// # Errors
    /// Absent or damaged files; a processor or tokenizer that does not fit the network, or a
    /// processor that crops, since what is cropped away would have no mask.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let network = ClipSegModel::load(folder, device)?;
        let (processor, tokenizer) = preprocessing(folder, network.config())?;
        Ok(Self {
            network,
            processor,
            tokenizer,
            device: device.clone(),
        })
    }

    /// Refuses a folder that cannot be loaded, by configuration and headers alone.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for weights that are damaged.
    pub fn check(folder: &Path) -> Result<()> {
        preprocessing(folder, &ClipSegModel::check(folder)?)?;
        Ok(())
    }

    /// Height and width of the images that the network is given, in pixels.
    ///
    /// # Errors
    /// The preprocessing gives images of several sizes.
    pub fn input_size(&self) -> Result<[usize; 2]> {
        input_size(&self.processor)
    }

    /// White where an image shows what its word names, black elsewhere; as large as the image. All
    /// images are read as one batch.
    ///
    /// The network's logits are resized bilinearly, as by `torch.nn.functional.interpolate` with
    /// `align_corners=False`; above 0, a probability of a half, is white.
    ///
    /// # Errors
    /// An image that the processor refuses; another number of words than of images.
    pub fn masks(&self, images: &[RgbImage], words: &[&str]) -> Result<Vec<GrayImage>> {
        ensure!(
            images.len() == words.len(),
            "{} images and {} words",
            images.len(),
            words.len()
        );
        let pixels = self.processor.preprocess(images, &self.device)?;
        let logits = self.network.forward(pixels, self.text_features(words));
        let [_, height, width] = logits.dims();
        let logits = to_vec(logits);
        let logits = logits.chunks_exact(height * width);
        let masks = logits.zip(images).map(|(values, image)| {
            let grid = Grid { values, width };
            grid.mask(image.width(), image.height())
        });
        Ok(masks.collect())
    }

    /// Features of every word; a word that comes again is read once.
    fn text_features(&self, words: &[&str]) -> Tensor<2> {
        let different: IndexSet<&str> = words.iter().copied().collect();
        let ids: Vec<Vec<u32>> = different
            .iter()
            .map(|word| self.tokenizer.encode(word).ids)
            .collect();
        let rows: Vec<i64> = words
            .iter()
            .filter_map(|word| Some(different.get_index_of(word)? as i64))
            .collect();
        let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &self.device);
        self.network.text_features(&ids).select(0, rows)
    }
}

fn preprocessing(folder: &Path, config: &ClipSegConfig) -> Result<(ImageProcessor, Tokenizer)> {
    let processor = ImageProcessor::from_dir(folder)?;
    let at = || folder.display().to_string();
    let [height, width] = input_size(&processor).with_context(at)?;
    config.check_size(height, width).with_context(at)?;
    let tokenizer = Tokenizer::from_dir(folder)?.fit(&config.clip.text_config)?;
    Ok((processor, tokenizer))
}

fn input_size(processor: &ImageProcessor) -> Result<[usize; 2]> {
    let Rectangle { height, width } = processor.whole_picture()?;
    Ok([height as usize, width as usize])
}

/// Logits row by row.
struct Grid<'a> {
    values: &'a [f32],
    width: usize,
}

impl Grid<'_> {
    fn mask(&self, width: u32, height: u32) -> GrayImage {
        let rows = self.values.len() / self.width;
        GrayImage::from_fn(width, height, |x, y| {
            let (left, right, dx) = neighbours(x, width, self.width);
            let (top, bottom, dy) = neighbours(y, height, rows);
            let at = |row: usize, column: usize| self.values[row * self.width + column];
            let upper = at(top, left) * (1.0 - dx) + at(top, right) * dx;
            let lower = at(bottom, left) * (1.0 - dx) + at(bottom, right) * dx;
            let inside = upper * (1.0 - dy) + lower * dy > 0.0;
            Luma([if inside { 255 } else { 0 }])
        })
    }
}

/// The two places of `from` around a place of `to`, and how near the second is.
fn neighbours(place: u32, to: u32, from: usize) -> (usize, usize, f32) {
    let scale = from as f32 / to as f32;
    let source = ((place as f32 + 0.5) * scale - 0.5).max(0.0);
    let first = (source as usize).min(from - 1);
    (first, (first + 1).min(from - 1), source - first as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_the_networks_own_size_is_white_where_logits_are_above_zero() {
        let grid = Grid {
            values: &[0.1, -0.1, 0.0, 2.0],
            width: 2,
        };
        assert_eq!(grid.mask(2, 2).into_raw(), [255, 0, 0, 255]);
    }

    #[test]
    fn a_larger_mask_is_cut_where_the_bilinear_logits_cross_zero() {
        let grid = Grid {
            values: &[-1.0, 3.0],
            width: 2,
        };
        // torch.nn.functional.interpolate: -1, -1, -.5, .5, 1.5, 2.5, 3, 3 at eight places has
        // the values -1, -.5, .5, 1.5, 2.5, 3 at its inner ones.
        assert_eq!(
            grid.mask(8, 1).into_raw(),
            [0, 0, 0, 255, 255, 255, 255, 255]
        );
    }
}
