//! The sheet of all methods side by side: an input photo and one image of every variant per row, as in the
//! paper's Fig. 4 and 5.

use std::path::PathBuf;

use anyhow::Result;

use super::grid::{Block, Cell, Sheet};
use super::sheets::Images;
use crate::gallery::load_images;

/// The side of an image, in pixels.
const CELL: u32 = 80;
/// How many rows there are at most, and how many of them one concept has.
const ROWS: usize = 8;
const ROWS_OF_CONCEPT: usize = 2;

/// What stands above the photos.
const INPUT: &str = "input";

/// One row.
struct Row<'a> {
    concept: &'a str,
    prompt: &'a str,
    /// The number of the photo that stands for the input.
    photo: usize,
}

impl<'a> Images<'a> {
    /// All of these variants for a few prompts of every concept; each concept begins where the kinds of prompts
    /// of the one before it end. None where nothing is compared.
    ///
    /// # Errors
    /// An image that cannot be read.
    pub(super) fn comparison(&self, variants: &[String]) -> Result<Option<Sheet>> {
        let rows = self.rows();
        if rows.is_empty() || variants.len() < 2 {
            return Ok(None);
        }
        let mut columns = vec![(INPUT.to_string(), self.input(&rows)?)];
        for variant in variants {
            let cells = rows
                .iter()
                .map(|row| self.image(variant, row.concept, row.prompt));
            columns.push((variant.clone(), cells.collect::<Result<_>>()?));
        }
        let name = |row: &Row<'_>| {
            let prompt = row.prompt.replace("{}", self.word(row.concept));
            format!("{}: {prompt}", row.concept)
        };
        Ok(Some(Sheet {
            blocks: vec![Block {
                title: String::new(),
                photos: Vec::new(),
                columns,
            }],
            rows: rows.iter().map(name).collect(),
            cell: CELL,
            prompts: 190,
            note: self.note(),
        }))
    }

    fn rows(&self) -> Vec<Row<'a>> {
        let concepts = self.concepts();
        let each = ROWS_OF_CONCEPT.min((ROWS / concepts.len().max(1)).max(1));
        let mut rows = Vec::new();
        for (number, concept) in concepts.into_iter().enumerate() {
            let prompts = self.kinds_in_turn(&self.prompts(concept));
            let chosen = (0..each.min(prompts.len())).map(|photo| Row {
                concept,
                prompt: prompts[(number * each + photo) % prompts.len()],
                photo,
            });
            rows.extend(chosen);
        }
        rows.truncate(ROWS);
        rows
    }

    /// The photo of each row.
    fn input(&self, rows: &[Row<'a>]) -> Result<Vec<Cell>> {
        let cell = |row: &Row<'a>| {
            let photos = self.photos(row.concept);
            let photo = photos.get(row.photo % photos.len().max(1));
            Ok(Cell {
                image: load_images(photo.into_iter().map(PathBuf::as_path))?.pop(),
                caption: String::new(),
                framed: false,
            })
        };
        rows.iter().map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::runs::Sources;
    use super::super::sheets::below_images;
    use super::*;
    use crate::metrics::{Metric, Scores};
    use crate::report::{ScoreRow, ScoreTable};

    const KINDS: [&str; 5] = ["plain", "background", "style", "outfit", "colour"];

    fn table(concepts: usize) -> ScoreTable {
        let mut rows = Vec::new();
        for concept in 0..concepts {
            // Two prompts of each kind, one after the other.
            for number in 0..2 * KINDS.len() {
                rows.push(ScoreRow {
                    variant: "CoRe".into(),
                    concept: format!("person-{concept}"),
                    seed: 0,
                    group: "animate".into(),
                    kind: KINDS[number / 2].into(),
                    prompt: format!("{} {}", KINDS[number / 2], number % 2),
                    image: "0.png".into(),
                    scores: Scores::default(),
                });
            }
        }
        ScoreTable {
            metrics: vec![Metric::Dino, Metric::Identity],
            rows,
        }
    }

    fn shown(concepts: usize) -> Vec<String> {
        let (table, sources) = (table(concepts), Sources::default());
        let images = Images::new(Path::new(""), &table, &sources);
        let rows = images.rows().into_iter();
        rows.map(|row| format!("{} {} {}", row.concept, row.prompt, row.photo))
            .collect()
    }

    #[test]
    fn concepts_share_the_rows_and_go_on_with_other_kinds_of_prompts() {
        let expected = [
            "person-0 plain 0 0",
            "person-0 background 0 1",
            "person-1 style 0 0",
            "person-1 outfit 0 1",
            "person-2 colour 0 0",
            "person-2 plain 1 1",
        ];
        assert_eq!(shown(3), expected);
        let many = shown(24);
        assert_eq!(many.len(), 8);
        assert_eq!(many[7], "person-7 style 1 0");
    }

    #[test]
    fn one_variant_alone_is_no_comparison() -> Result<()> {
        let (table, sources) = (table(2), Sources::default());
        let images = Images::new(Path::new(""), &table, &sources);
        assert!(images.comparison(&["CoRe".into()])?.is_none());
        let names = ["CoRe".to_string(), "class word".to_string()];
        let sheet = images.comparison(&names)?;
        let shown = sheet.map(|sheet| (sheet.blocks[0].columns.len(), sheet.rows[0].clone()));
        assert_eq!(shown, Some((3, "person-0: plain 0".to_string())));
        Ok(())
    }

    #[test]
    fn people_are_labelled_with_their_identity_and_things_with_what_tells_them_apart() {
        use Metric::{ClipI, Dino, Identity};
        assert_eq!(below_images(&[ClipI, Dino, Identity]), Some(Identity));
        assert_eq!(below_images(&[ClipI, Dino]), Some(Dino));
    }
}
