//! A sheet of images: for each concept a block of photos over one row per prompt and one column per variant,
//! with a score below each image.

use std::path::PathBuf;

use anyhow::Result;
use image::RgbImage;
use plotters::prelude::*;

use super::canvas::{Anchor, Area, Figure, GRAY, drawing_error, rule, write};
use super::placed::Placed;
use crate::report::font::wrapped;

/// Space between images, and between blocks, in pixels.
const GAP: u32 = 6;
const BETWEEN: u32 = 22;
/// Height of a line of text.
const LINE: u32 = 16;

/// An image with what stands below it.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// The image; none where its file is gone.
    pub(super) image: Option<RgbImage>,
    /// The text below it.
    pub(super) caption: String,
    /// Whether a frame calls attention to it.
    pub(super) framed: bool,
}

/// One concept.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// What stands above its photos.
    pub(super) title: String,
    pub(super) photos: Vec<RgbImage>,
    /// Names with one cell per row.
    pub(super) columns: Vec<(String, Vec<Cell>)>,
}

/// The blocks side by side, with common rows.
#[derive(Debug, Clone)]
pub(super) struct Sheet {
    pub(super) blocks: Vec<Block>,
    /// The prompts.
    pub(super) rows: Vec<String>,
    /// The side of an image in pixels.
    pub(super) cell: u32,
    /// The width of the column of prompts in pixels.
    pub(super) prompts: u32,
    /// How to read the captions.
    pub(super) note: String,
}

impl Sheet {
    /// Draws the sheet.
    ///
    /// # Errors
    /// An unwritable folder.
    pub(super) fn draw(&self, figure: Figure<'_>) -> Result<Vec<PathBuf>> {
        let figure = Figure {
            size: self.size(),
            ..figure
        };
        figure.draw(&self.images(), |area| self.paint(area))
    }

    fn step(&self) -> u32 {
        self.cell + GAP
    }

    /// The height of a row: its images and, where there are any, their captions.
    fn row(&self) -> u32 {
        let mut cells = self
            .blocks
            .iter()
            .flat_map(|block| &block.columns)
            .flat_map(|(_, cells)| cells);
        let captions = cells.any(|cell| !cell.caption.is_empty());
        self.step() + if captions { LINE } else { 0 }
    }

    /// The letters that fit into a column's title.
    fn letters(&self) -> usize {
        (self.cell as usize / 7).max(8)
    }

    /// The lines that the longest title of a column has.
    fn title_lines(&self) -> usize {
        let columns = self.blocks.iter().flat_map(|block| &block.columns);
        let lines = columns.map(|(name, _)| wrapped(name, self.letters()).len());
        lines.max().unwrap_or(1)
    }

    fn has_photos(&self) -> bool {
        self.blocks.iter().any(|block| !block.photos.is_empty())
    }

    /// The upper edge of the photos, of the titles of columns, and of the first row.
    fn heights(&self) -> (u32, u32, u32) {
        let has_titles = self.blocks.iter().any(|block| !block.title.is_empty());
        let photos = if has_titles { LINE + 12 } else { 0 };
        let titles = match self.has_photos() {
            true => photos + self.step() + 8,
            false => photos,
        };
        (
            photos,
            titles,
            titles + LINE * self.title_lines() as u32 + 6,
        )
    }

    fn width_of(&self, block: &Block) -> u32 {
        self.step() * block.columns.len().max(block.photos.len().min(3)) as u32 - GAP
    }

    /// The left edge of every block.
    fn lefts(&self) -> Vec<u32> {
        let mut left = self.prompts;
        let place = |block: &Block| {
            let at = left;
            left += self.width_of(block) + BETWEEN;
            at
        };
        self.blocks.iter().map(place).collect()
    }

    fn size(&self) -> (u32, u32) {
        let right = self.lefts().last().copied().zip(self.blocks.last());
        let width = right.map_or(self.prompts, |(left, block)| left + self.width_of(block));
        let note = if self.note.is_empty() { 0 } else { LINE + 6 };
        let height = self.heights().2 + self.row() * self.rows.len() as u32 + note;
        (width + GAP, height)
    }

    /// As many photos as fit over the columns of a block.
    fn photos<'a>(&self, block: &'a Block) -> &'a [RgbImage] {
        let fit = (self.width_of(block) + GAP) / self.step();
        &block.photos[..block.photos.len().min(fit as usize)]
    }

    fn images(&self) -> Vec<Placed> {
        let (photos, _, first) = self.heights();
        let mut images = Vec::new();
        for (block, left) in self.blocks.iter().zip(self.lefts()) {
            let shown = self.photos(block);
            let start = left + self.inset(block, shown.len());
            for (number, photo) in shown.iter().enumerate() {
                let x = start + number as u32 * self.step();
                images.push(Placed::new(photo.clone(), (x, photos), self.cell));
            }
            let start = left + self.inset(block, block.columns.len());
            for (column, (_, cells)) in block.columns.iter().enumerate() {
                let x = start + column as u32 * self.step();
                for (row, cell) in cells.iter().enumerate() {
                    let y = first + row as u32 * self.row();
                    if let Some(image) = &cell.image {
                        images.push(Placed::new(image.clone(), (x, y), self.cell));
                    }
                }
            }
        }
        images
    }

    /// How far so many images are moved to the right to stand in the middle of their block.
    fn inset(&self, block: &Block, count: usize) -> u32 {
        let taken = (self.step() * count as u32).saturating_sub(GAP);
        self.width_of(block).saturating_sub(taken) / 2
    }

    fn paint(&self, area: &Area) -> Result<()> {
        let (photos, titles, first) = self.heights();
        let middle = |row: usize| (first + row as u32 * self.row() + self.cell / 2) as i32;
        if self.has_photos() {
            let y = (photos + self.cell / 2) as i32;
            write(area, "photos", (GAP as i32, y), 15, Anchor::Left)?;
        }
        for (row, prompt) in self.rows.iter().enumerate() {
            let lines = wrapped(prompt, self.prompts as usize / 8);
            let top = middle(row) - 9 * (lines.len() as i32 - 1);
            for (line, words) in lines.iter().enumerate() {
                let at = (GAP as i32, top + 18 * line as i32);
                write(area, words, at, 15, Anchor::Left)?;
            }
        }
        for (block, left) in self.blocks.iter().zip(self.lefts()) {
            let width = self.width_of(block);
            let center = (left + width / 2) as i32;
            write(area, &block.title, (center, 14), 16, Anchor::Center)?;
            if self.has_photos() {
                let y = titles as i32 - 5;
                rule(area, (left as i32, y), ((left + width) as i32, y), GRAY)?;
            }
            self.paint_columns(area, block, left)?;
        }
        if !self.note.is_empty() {
            let y = (self.size().1 - LINE / 2 - 4) as i32;
            write(area, &self.note, (GAP as i32, y), 13, Anchor::Left)?;
        }
        Ok(())
    }

    fn paint_columns(&self, area: &Area, block: &Block, left: u32) -> Result<()> {
        let (_, titles, first) = self.heights();
        let start = left + self.inset(block, block.columns.len());
        for (column, (name, cells)) in block.columns.iter().enumerate() {
            let x = start + column as u32 * self.step();
            let center = (x + self.cell / 2) as i32;
            let lines = wrapped(name, self.letters());
            // Short titles stand directly above their column.
            let top = titles + LINE * (self.title_lines() - lines.len()) as u32 + LINE / 2 + 2;
            for (line, words) in lines.iter().enumerate() {
                let y = (top + LINE * line as u32) as i32;
                write(area, words, (center, y), 14, Anchor::Center)?;
            }
            for (row, cell) in cells.iter().enumerate() {
                let y = first + row as u32 * self.row();
                self.paint_cell(area, cell, (x as i32, y as i32))?;
            }
        }
        Ok(())
    }

    fn paint_cell(&self, area: &Area, cell: &Cell, (x, y): (i32, i32)) -> Result<()> {
        let side = self.cell as i32;
        if cell.image.is_none() {
            let square = Rectangle::new(
                [(x, y), (x + side, y + side)],
                RGBColor(235, 235, 235).filled(),
            );
            area.draw(&square).map_err(drawing_error)?;
            write(
                area,
                "no image",
                (x + side / 2, y + side / 2),
                13,
                Anchor::Center,
            )?;
        }
        if cell.framed {
            let frame = Rectangle::new(
                [(x - 3, y - 3), (x + side + 3, y + side + 3)],
                RGBColor(213, 94, 0).filled(),
            );
            area.draw(&frame).map_err(drawing_error)?;
        }
        let at = (x + side / 2, y + side + 9);
        write(area, &cell.caption, at, 13, Anchor::Center)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(columns: usize, photos: usize) -> Sheet {
        let cell = Cell {
            image: Some(RgbImage::new(64, 64)),
            caption: ".71".into(),
            framed: false,
        };
        Sheet {
            blocks: vec![Block {
                title: "dog".into(),
                photos: vec![RgbImage::new(64, 64); photos],
                columns: vec![("CoRe".into(), vec![cell; 5]); columns],
            }],
            rows: vec!["a dog in the snow".into(); 5],
            cell: 80,
            prompts: 100,
            note: String::new(),
        }
    }

    #[test]
    fn photos_fit_over_the_columns_and_stand_in_the_middle() {
        let wide = sheet(4, 2);
        assert_eq!(wide.photos(&wide.blocks[0]).len(), 2);
        assert_eq!(wide.inset(&wide.blocks[0], 2), wide.step());
        let narrow = sheet(3, 5);
        assert_eq!(narrow.photos(&narrow.blocks[0]).len(), 3);
        assert_eq!(narrow.inset(&narrow.blocks[0], 3), 0);
    }

    #[test]
    fn two_concepts_with_three_columns_and_five_prompts_fit_on_a_first_screen() {
        let mut sheet = sheet(3, 3);
        sheet.blocks.push(sheet.blocks[0].clone());
        sheet.prompts = 190;
        sheet.note = "below each image: DINO with the photos".into();
        let (width, height) = sheet.size();
        assert!(width <= 900 && height <= 700, "{width} x {height}");
    }
}
