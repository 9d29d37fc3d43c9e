//! `grid.png`: reference photos, then one row per prompt and one column per variant.

use std::path::Path;

use anyhow::{Result, anyhow};
use core_model::files::write_png;
use image::RgbImage;
use image::imageops::{FilterType, overlay, resize};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::font::{self, FAMILY, wrapped};

/// Side of an image on the grid, in pixels.
const CELL: u32 = 128;
/// Space between images, in pixels.
const GAP: u32 = 6;
/// Width of the column of prompts, in pixels.
const PROMPTS: u32 = 250;
/// Height of a line of titles, in pixels.
const TITLE: u32 = 34;

/// Draws the grid; `columns` hold one image per prompt of `rows`.
///
/// # Errors
/// An unwritable file.
pub fn draw_grid(
    path: &Path,
    photos: &[RgbImage],
    columns: &[(String, Vec<RgbImage>)],
    rows: &[String],
) -> Result<()> {
    font::register()?;
    let step = CELL + GAP;
    let across = (columns.len().max(photos.len())) as u32;
    let width = PROMPTS + across * step + GAP;
    let top = TITLE + step + TITLE;
    let height = top + rows.len() as u32 * step + GAP;
    let mut pixels = vec![255; (width * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        let write = |text: &str, x: u32, y: u32, size: u32, h: HPos| {
            let style = TextStyle::from((FAMILY, size).into_font()).pos(Pos::new(h, VPos::Center));
            area.draw(&Text::new(text.to_string(), (x as i32, y as i32), style))
                .map_err(|error| anyhow!("drawing {}: {error}", path.display()))
        };
        write("photos", GAP, TITLE + step / 2, 16, HPos::Left)?;
        for (column, (name, _)) in columns.iter().enumerate() {
            let center = PROMPTS + column as u32 * step + CELL / 2;
            for (line, words) in wrapped(name, 18).into_iter().enumerate() {
                let y = TITLE + step + 10 + 14 * line as u32;
                write(&words, center, y, 13, HPos::Center)?;
            }
        }
        for (row, prompt) in rows.iter().enumerate() {
            for (line, words) in wrapped(prompt, 30).into_iter().enumerate() {
                let y = top + row as u32 * step + CELL / 2 + 18 * line as u32;
                write(&words, GAP, y, 15, HPos::Left)?;
            }
        }
        area.present()
            .map_err(|error| anyhow!("drawing {}: {error}", path.display()))?;
    }
    let Some(mut sheet) = RgbImage::from_raw(width, height, pixels) else {
        return Err(anyhow!("{}: the grid has no pixels", path.display()));
    };
    let mut place = |image: &RgbImage, column: usize, y: u32| {
        let x = PROMPTS + column as u32 * step;
        overlay(&mut sheet, &fitted(image), i64::from(x), i64::from(y));
    };
    for (column, photo) in photos.iter().enumerate() {
        place(photo, column, TITLE);
    }
    for (column, (_, images)) in columns.iter().enumerate() {
        for (row, image) in images.iter().enumerate() {
            place(image, column, top + row as u32 * step);
        }
    }
    Ok(write_png(path, &sheet)?)
}

/// Small images are enlarged by whole factors, large ones reduced.
fn fitted(image: &RgbImage) -> RgbImage {
    let side = image.width().max(image.height()).max(1);
    let filter = if side <= CELL {
        FilterType::Nearest
    } else {
        FilterType::Lanczos3
    };
    let scaled = |length: u32| {
        if side <= CELL {
            length * (CELL / side)
        } else {
            length * CELL / side
        }
    };
    resize(
        image,
        scaled(image.width()).max(1),
        scaled(image.height()).max(1),
        filter,
    )
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn small_images_grow_by_whole_factors_only() {
        let image = image::RgbImage::new(50, 40);
        assert_eq!(fitted(&image).dimensions(), (100, 80));
    }
}
