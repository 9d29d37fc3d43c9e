//! From images to the numbers that an encoder was trained on, as transformers' image processors
//! compute them on Pillow (`CLIPImageProcessorPil`, `ViTImageProcessorPil`).
//!
//! With torchvision installed, transformers' default processors resize otherwise and move CLIP's
//! features by up to 3e-3.

mod encode;
mod fit;
mod jpeg;
mod limits;
mod load;
mod resample;
mod rotate;

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use encode::encode_jpeg;
pub use fit::{channels_first, crop, resize_shortest_side, shortest_side, squash};
pub(crate) use load::FORMATS;
pub use load::load_image;
use resample::resize_part;
pub use resample::{Filter, resize};
pub use rotate::rotate;

use crate::config::{read_object, write_json};
use crate::error::{Error, Result};

/// The largest side that a configuration may ask for, in pixels.
const MAX_SIDE: u64 = 16_384;

/// The classes whose configurations are read.
const CLASSES: &str =
    "CLIPImageProcessor, ViTImageProcessor, BitImageProcessor or SiglipImageProcessor";

/// The family whose defaults stand for absent keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Clip,
    Vit,
    Siglip,
}

/// Size of an image after resizing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Size {
    /// The shorter side; the other follows.
    ShortestEdge {
        /// In pixels.
        shortest_edge: u32,
    },
    /// Both sides.
    Exact(Rectangle),
}

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rectangle {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Rectangle {
    fn square(side: u32) -> Self {
        Self {
            height: side,
            width: side,
        }
    }
}

/// What `preprocessor_config.json` says; the steps are applied in this order, on RGB.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageProcessor {
    image_processor_type: &'static str,
    do_resize: bool,
    size: Size,
    resample: Filter,
    do_center_crop: bool,
    crop_size: Rectangle,
    do_rescale: bool,
    rescale_factor: f64,
    do_normalize: bool,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    do_convert_rgb: bool,
}

impl ImageProcessor {
    /// `CLIPImageProcessor` for images of `side` by `side` pixels: shorter side bicubic, centre,
    /// CLIP's means.
    pub fn clip(side: u32) -> Self {
        Self {
            image_processor_type: "CLIPImageProcessor",
            do_resize: true,
            size: Size::ShortestEdge {
                shortest_edge: side,
            },
            resample: Filter::Bicubic,
            do_center_crop: true,
            crop_size: Rectangle::square(side),
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
            do_convert_rgb: true,
        }
    }

    /// `ViTImageProcessor` for images of `side` by `side` pixels: squashed, bilinear, to -1..1.
    pub fn vit(side: u32) -> Self {
        Self {
            image_processor_type: "ViTImageProcessor",
            size: Size::Exact(Rectangle::square(side)),
            resample: Filter::Bilinear,
            do_center_crop: false,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            ..Self::clip(side)
        }
    }

    /// `SiglipImageProcessor` for images of `side` by `side` pixels: squashed, bicubic, to -1..1.
    pub fn siglip(side: u32) -> Self {
        Self {
            image_processor_type: "SiglipImageProcessor",
            resample: Filter::Bicubic,
            ..Self::vit(side)
        }
    }

    /// Reads `preprocessor_config.json`, or the part of `processor_config.json` that newer
    /// versions of transformers write instead. Absent keys take the class's defaults; the class
    /// comes from the file, else from the `model_type` of the folder's `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] naming an absent or damaged file, [`Error::Config`]
    /// naming a key whose value cannot be honoured.
    pub fn from_dir(folder: &Path) -> Result<Self> {
        let path = folder.join("preprocessor_config.json");
        let newer = folder.join("processor_config.json");
        if path.exists() || !newer.exists() {
            return Keys {
                object: read_object(&path)?,
                path,
            }
            .processor(folder);
        }
        let nested = read_object(&newer)?.remove("image_processor");
        let Some(Value::Object(object)) = nested else {
            return Err(Error::format(newer, "holds no `image_processor`"));
        };
        Keys {
            object,
            path: newer,
        }
        .processor(folder)
    }

    /// Writes `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn save(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join("preprocessor_config.json"), self)
    }

    /// The size to which every image is squashed whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] when images are cropped or keep their shape.
    pub fn whole_picture(&self) -> Result<Rectangle> {
        match self.size {
            Size::Exact(size)
                if self.do_resize && (!self.do_center_crop || self.crop_size == size) =>
            {
                Ok(size)
            }
            _ => Err(Error::Invalid(
                "preprocessor_config.json crops images or keeps their shape, but every pixel \
                 needs a mask; set `size` to a `height` and a `width`, and `do_center_crop` to \
                 false"
                    .into(),
            )),
        }
    }

    /// The size of all images that `preprocess` gives.
    fn given(&self) -> Result<Rectangle> {
        match (self.do_center_crop, self.do_resize, self.size) {
            (true, ..) => Ok(self.crop_size),
            (false, true, Size::Exact(size)) => Ok(size),
            _ => Err(Error::Invalid(
                "preprocessor_config.json leaves images of any size, but the encoder needs one; \
                 set `do_center_crop` and `crop_size`"
                    .into(),
            )),
        }
    }

    /// Refuses an encoder whose patches do not fill the images that `preprocess` gives.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming both sizes, in pixels.
    pub fn check_multiple(&self, patch: usize) -> Result<()> {
        let Rectangle { height, width } = self.given()?;
        match [height, width]
            .iter()
            .all(|side| (*side as usize).is_multiple_of(patch))
        {
            true => Ok(()),
            false => Err(Error::Invalid(format!(
                "preprocessor_config.json makes images of {height} by {width} pixels, but the \
                 encoder's `patch_size` is {patch}; the files belong to different models"
            ))),
        }
    }

    /// Refuses an encoder that takes other images than `preprocess` gives.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming both sizes, in pixels.
    pub fn check_side(&self, side: usize) -> Result<()> {
        let Rectangle { height, width } = self.given()?;
        if [height, width].iter().any(|have| *have as usize != side) {
            return Err(Error::Invalid(format!(
                "preprocessor_config.json makes images of {height} by {width} pixels, but the \
                 encoder's `image_size` is {side}; the files belong to different models"
            )));
        }
        Ok(())
    }

    /// Images to [batch, 3, height, width].
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no image, one without pixels, or when the configuration
    /// leaves images of different size.
    pub fn preprocess(&self, images: &[RgbImage], device: &Device) -> Result<Tensor<4>> {
        let mut values = Vec::new();
        let mut size = None;
        for image in images {
            if image.width() == 0 || image.height() == 0 {
                return Err(Error::Invalid("an image has no pixels".into()));
            }
            let image = self.fit(image)?;
            let first = *size.get_or_insert(image.dimensions());
            if image.dimensions() != first {
                return Err(Error::Invalid(format!(
                    "preprocessing leaves images of {first:?} and {:?} pixels in one batch; set \
                     `do_center_crop` in preprocessor_config.json",
                    image.dimensions()
                )));
            }
            self.push_values(&image, &mut values);
        }
        let Some((width, height)) = size else {
            return Err(Error::Invalid("there are no images to preprocess".into()));
        };
        let shape = [images.len(), 3, height as usize, width as usize];
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }

    /// Resized, and of that the centre; where the image is smaller, it is padded with black.
    /// What is cut off is never computed.
    fn fit<'a>(&self, image: &'a RgbImage) -> Result<Cow<'a, RgbImage>> {
        let size = self.resized(image.dimensions());
        let (width, height) = match self.do_center_crop {
            true => (self.crop_size.width, self.crop_size.height),
            false => size,
        };
        if size == image.dimensions() && size == (width, height) {
            return Ok(Cow::Borrowed(image));
        }
        if u64::from(width) * u64::from(height) > MAX_SIDE * MAX_SIDE {
            let (old_width, old_height) = image.dimensions();
            return Err(Error::Invalid(format!(
                "an image of {old_width} by {old_height} pixels would be resized to {width} by \
                 {height}; crop it first"
            )));
        }
        let (columns, left) = centre(size.0, width);
        let (rows, top) = centre(size.1, height);
        let inside = resize_part(image, size, columns, rows, self.resample);
        if inside.dimensions() == (width, height) {
            return Ok(Cow::Owned(inside));
        }
        let mut padded = RgbImage::new(width, height);
        image::imageops::replace(&mut padded, &inside, left.into(), top.into());
        Ok(Cow::Owned(padded))
    }

    fn resized(&self, size: (u32, u32)) -> (u32, u32) {
        match self.size {
            _ if !self.do_resize => size,
            Size::ShortestEdge { shortest_edge } => fit::shortest_side(size, shortest_edge),
            Size::Exact(Rectangle { height, width }) => (width, height),
        }
    }

    /// Appends the image's values, channel by channel.
    fn push_values(&self, image: &RgbImage, values: &mut Vec<f32>) {
        for channel in 0..3 {
            let (mean, std) = (
                self.image_mean[channel] as f32,
                self.image_std[channel] as f32,
            );
            values.extend(image.pixels().map(|pixel| {
                let byte = f64::from(pixel.0[channel]);
                let scaled = if self.do_rescale {
                    byte * self.rescale_factor
                } else {
                    byte
                } as f32;
                if self.do_normalize {
                    (scaled - mean) / std
                } else {
                    scaled
                }
            }));
        }
    }
}

/// Which of `have` pixels lie in the middle `want`, and how many black ones come before them. The
/// crop begins at a place that is rounded down, the padding is rounded up.
fn centre(have: u32, want: u32) -> (Range<u32>, u32) {
    let start = (i64::from(have) - i64::from(want)).div_euclid(2);
    let end = start + i64::from(want);
    let inside = |at: i64| at.clamp(0, i64::from(have)) as u32;
    (inside(start)..inside(end), (-start).max(0) as u32)
}

/// A configuration's keys, with the file for errors.
struct Keys {
    object: Map<String, Value>,
    path: PathBuf,
}

impl Keys {
    fn processor(&self, folder: &Path) -> Result<ImageProcessor> {
        let family = self.family(folder)?;
        let defaults = match family {
            Family::Clip => ImageProcessor::clip(224),
            Family::Vit => ImageProcessor::vit(224),
            Family::Siglip => ImageProcessor::siglip(224),
        };
        for key in ["do_pad", "do_reduce_labels"] {
            if self.get(key, "true or false")?.unwrap_or(false) {
                return Err(self.unsupported(key, "false"));
            }
        }
        let std = self.triple("image_std")?.unwrap_or(defaults.image_std);
        if std.contains(&0.0) {
            return Err(self.unsupported("image_std", "numbers other than 0"));
        }
        Ok(ImageProcessor {
            do_resize: self.flag("do_resize", defaults.do_resize)?,
            size: self.size(family)?.unwrap_or(defaults.size),
            resample: self
                .get("resample", "a number from 0 to 5")?
                .unwrap_or(defaults.resample),
            do_center_crop: self.flag("do_center_crop", defaults.do_center_crop)?,
            crop_size: self.rectangle("crop_size")?.unwrap_or(defaults.crop_size),
            do_rescale: self.flag("do_rescale", defaults.do_rescale)?,
            rescale_factor: self
                .get("rescale_factor", "a number")?
                .unwrap_or(defaults.rescale_factor),
            do_normalize: self.flag("do_normalize", defaults.do_normalize)?,
            image_mean: self.triple("image_mean")?.unwrap_or(defaults.image_mean),
            image_std: std,
            do_convert_rgb: self.flag("do_convert_rgb", defaults.do_convert_rgb)?,
            ..defaults
        })
    }

    fn family(&self, folder: &Path) -> Result<Family> {
        for key in ["image_processor_type", "feature_extractor_type"] {
            if let Some(class) = self.get::<String>(key, "the name of a class")? {
                return match class.as_str() {
                    _ if class.starts_with("CLIPImageProcessor") => Ok(Family::Clip),
                    // Of DINOv2; its defaults are CLIP's.
                    _ if class.starts_with("BitImageProcessor") => Ok(Family::Clip),
                    _ if class.starts_with("ViTImageProcessor") => Ok(Family::Vit),
                    _ if class.starts_with("SiglipImageProcessor") => Ok(Family::Siglip),
                    "CLIPFeatureExtractor" => Ok(Family::Clip),
                    "ViTFeatureExtractor" => Ok(Family::Vit),
                    _ => Err(self.unsupported(key, CLASSES)),
                };
            }
        }
        let config = folder.join("config.json");
        let model = if config.exists() {
            read_object(&config)?
        } else {
            Map::new()
        };
        match model.get("model_type").and_then(Value::as_str) {
            Some("clip" | "dinov2") => Ok(Family::Clip),
            Some("vit") => Ok(Family::Vit),
            Some("siglip") => Ok(Family::Siglip),
            _ => Err(self.unsupported("image_processor_type", CLASSES)),
        }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn get<T: for<'de> Deserialize<'de>>(&self, key: &str, expected: &str) -> Result<Option<T>> {
        self.value(key)
            .map(|value| T::deserialize(value).map_err(|_| self.unsupported(key, expected)))
            .transpose()
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.get(key, "true or false")?.unwrap_or(default))
    }

    fn triple(&self, key: &str) -> Result<Option<[f64; 3]>> {
        if let Some(value) = self.value(key).and_then(Value::as_f64) {
            return Ok(Some([value; 3]));
        }
        self.get(key, "three numbers, one per channel")
    }

    /// A bare number means a square, but CLIP's shorter side.
    fn size(&self, family: Family) -> Result<Option<Size>> {
        let Some(value) = self.value("size") else {
            return Ok(None);
        };
        let shortest_edge = match value {
            Value::Object(size) if size.get("longest_edge").is_some_and(|edge| !edge.is_null()) => {
                return Err(self.unsupported("size", "no `longest_edge`"));
            }
            Value::Object(size) => size.get("shortest_edge"),
            number if family == Family::Clip => Some(number),
            _ => None,
        };
        match shortest_edge.filter(|edge| !edge.is_null()) {
            Some(edge) => {
                let shortest_edge = self.side("size", edge)?;
                Ok(Some(Size::ShortestEdge { shortest_edge }))
            }
            None => Ok(self.rectangle("size")?.map(Size::Exact)),
        }
    }

    fn rectangle(&self, key: &str) -> Result<Option<Rectangle>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let [height, width] = match value {
            Value::Object(sides) => ["height", "width"].map(|name| sides.get(name)),
            side => [Some(side); 2],
        };
        let side = |side: Option<&Value>| self.side(key, side.unwrap_or(&Value::Null));
        Ok(Some(Rectangle {
            height: side(height)?,
            width: side(width)?,
        }))
    }

    fn side(&self, key: &str, value: &Value) -> Result<u32> {
        match value.as_u64() {
            Some(side @ 1..=MAX_SIDE) => Ok(side as u32),
            _ => Err(self.unsupported(
                key,
                &format!(
                    "a number, `shortest_edge` or `height` and `width`, each from 1 to {MAX_SIDE}"
                ),
            )),
        }
    }

    fn unsupported(&self, key: &str, expected: &str) -> Error {
        Error::Config {
            path: self.path.clone(),
            key: key.into(),
            value: self
                .object
                .get(key)
                .map_or_else(|| "absent".into(), ToString::to_string),
            expected: expected.into(),
        }
    }
}
