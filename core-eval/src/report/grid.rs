//! `grid.png`: the photos, then a row a prompt and a column a variant.

use std::path::Path;

use anyhow::{Result, anyhow};
use core_model::files::write_png;
use image::RgbImage;
use image::imageops::{FilterType, overlay, resize};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::font::{self, FAMILY};

/// Side of a picture on the grid, in pixels.
const CELL: u32 = 128;
/// Between pictures, in pixels.
const GAP: u32 = 6;
/// The column of prompts, in pixels.
const PROMPTS: u32 = 250;
/// A line of titles, in pixels.
const TITLE: u32 = 34;

/// Draws the grid; `columns` hold one picture for every prompt of `rows`.
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
    let mut place = |picture: &RgbImage, column: usize, y: u32| {
        let x = PROMPTS + column as u32 * step;
        overlay(&mut sheet, &fitted(picture), i64::from(x), i64::from(y));
    };
    for (column, photo) in photos.iter().enumerate() {
        place(photo, column, TITLE);
    }
    for (column, (_, pictures)) in columns.iter().enumerate() {
        for (row, picture) in pictures.iter().enumerate() {
            place(picture, column, top + row as u32 * step);
        }
    }
    Ok(write_png(path, &sheet)?)
}

/// Small pictures enlarged by whole factors, large ones made smaller.
fn fitted(picture: &RgbImage) -> RgbImage {
    let side = picture.width().max(picture.height()).max(1);
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
        picture,
        scaled(picture.width()).max(1),
        scaled(picture.height()).max(1),
        filter,
    )
}

/// Lines of about `letters` letters.
fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{fitted, wrapped};

    #[test]
    fn small_pictures_grow_by_whole_factors_only() {
        let picture = image::RgbImage::new(50, 40);
        assert_eq!(fitted(&picture).dimensions(), (100, 80));
    }

    #[test]
    fn long_names_are_broken_between_words() {
        assert_eq!(
            wrapped("without context embedding", 18),
            ["without context", "embedding"]
        );
    }
}
