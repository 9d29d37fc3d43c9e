//! A results folder with the scores of images of any origin, as an experiment has it, and its page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::photos::PhotoFolder;

use super::concepts::ConceptPhotos;
use super::input::Input;
use super::table::Scored;
use core_eval::checks::{CheckRow, checks_of_photos};
use core_eval::page::{self, Options, Source};
use core_eval::protocol::Protocol;
use core_eval::report::{ScoreRow, ScoreTable, Tables, Weighting};

/// What the folder is made of.
pub(super) struct Results<'a> {
    pub(super) input: &'a Input,
    pub(super) scored: &'a Scored<'a>,
    pub(super) photos: &'a BTreeMap<String, ConceptPhotos>,
    pub(super) protocol: &'a Protocol,
    pub(super) protocol_text: &'a str,
    /// The name of the variant, which is the only one.
    pub(super) name: String,
}

impl Results<'_> {
    /// Writes scores, summary, checks, table, protocol and the report page. Images stay where they are and
    /// are named by their whole paths.
    ///
    /// # Errors
    /// An unwritable folder.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("--results {}", folder.display()))?;
        let photos = self.photos.iter();
        let counts = photos.map(|(concept, of)| (self.concept(concept), of.compared.len()));
        let counts: BTreeMap<String, usize> = counts.collect();
        let tables = Tables {
            scores: &self.scores(),
            checks: &self.checks(),
            weighting: Weighting {
                averaging: self.protocol.averaging,
                photos: &counts,
            },
            protocol: self.protocol_text,
        };
        tables.write(folder, "")?;
        // What only trained concepts have is not missing here.
        let source = Source {
            name: self.name.clone(),
            command: command()?,
            photos: self.photo_files()?,
            missing: Vec::new(),
            ..Source::read(&[folder.to_path_buf()])?
        };
        page::write(&source, folder, &Options::default())?;
        Ok(())
    }

    fn checks(&self) -> Vec<CheckRow> {
        let photos = self.photos.values().map(|of| (&of.compared, &of.beside));
        let mut rows = checks_of_photos(&self.scored.metrics, self.protocol, photos);
        rows.extend(self.scored.faces(self.protocol.averaging, &self.name));
        rows
    }

    /// The photos of every concept.
    fn photo_files(&self) -> Result<BTreeMap<String, Vec<PathBuf>>> {
        let concepts = self.photos.keys().map(|name| {
            let files = PhotoFolder::read(&self.input.reference_photos(name)?)?.files;
            Ok((self.concept(name), files))
        });
        concepts.collect()
    }

    fn scores(&self) -> ScoreTable {
        let rows = self.scored.items.iter().zip(&self.scored.scores);
        let rows = rows.map(|(item, of_image)| {
            let path = item
                .path
                .canonicalize()
                .unwrap_or_else(|_| item.path.clone());
            ScoreRow {
                variant: self.name.clone(),
                concept: self.concept(&item.concept),
                seed: item.seed,
                group: String::new(),
                kind: item.kind.clone(),
                prompt: item.prompt.clone(),
                image: path.to_string_lossy().replace('\\', "/"),
                scores: of_image.scores,
            }
        });
        ScoreTable {
            metrics: self.scored.metrics.clone(),
            rows: rows.collect(),
        }
    }

    /// The name of a concept; images of one concept alone have none, and take that of what is scored.
    fn concept(&self, name: &str) -> String {
        match name {
            "" => self.name.clone(),
            name => name.to_string(),
        }
    }
}

/// The command that was given, as one types it.
fn command() -> Result<String> {
    let words = std::env::args_os().skip(1);
    let words: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = shlex::try_join(words.iter().map(String::as_str));
    Ok(format!("core-eval {}", words.context("the command line")?))
}
