//! `images.csv`: what is known of single images beside their scores.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::metrics::Metric;
use crate::protocol::Protocol;
use crate::report::read_rows;
use crate::scoring::ScoredImages;

/// A row of `images.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRow {
    /// The file, relative to the results.
    pub image: String,
    /// The highest similarity to a photo of the concept by the instance metric.
    pub closest: Option<f64>,
    /// The index of that photo.
    pub photo: Option<usize>,
    /// The share of the image that its mask shows; under masked protocols only.
    pub foreground: Option<f64>,
    /// The mask in 32 by 32 squares, row by row, four squares to a hexadecimal digit.
    pub mask: String,
}

impl ImageRow {
    /// Reads the rows of a results folder and names images with it; an absent file has none.
    ///
    /// # Errors
    /// A damaged file.
    pub fn read(folder: &Path, suffix: &str) -> Result<Vec<Self>> {
        let mut rows: Vec<Self> = read_rows(&folder.join(format!("images{suffix}.csv")))?;
        for row in &mut rows {
            row.image = folder.join(&row.image).to_string_lossy().replace('\\', "/");
        }
        Ok(rows)
    }
}

/// The rows of all images under a protocol.
pub fn image_rows(images: &ScoredImages<'_>, protocol: &Protocol) -> Vec<ImageRow> {
    let instances = Metric::of_instances(&images.metrics);
    let row = |image: &crate::scoring::ScoredImage| {
        let photos = &images.photos[images.cells[image.cell].concept];
        let closest = instances.and_then(|metric| {
            let feature = image.features.of(metric, protocol)?;
            let photos = photos.iter().enumerate();
            let similar = photos.filter_map(|(index, photo)| {
                let photo = photo.of(metric, protocol)?;
                Some((index, metric.definition().similarity(feature, photo)))
            });
            similar.max_by(|a, b| a.1.total_cmp(&b.1))
        });
        let outline = image.features.outline.as_ref();
        let outline = outline.filter(|_| protocol.masked);
        ImageRow {
            image: image.image.name(),
            closest: closest.map(|(_, value)| value),
            photo: closest.map(|(index, _)| index),
            foreground: outline.map(|outline| outline.share),
            mask: outline.map_or(String::new(), |outline| outline.squares.clone()),
        }
    };
    images.images.iter().map(row).collect()
}
