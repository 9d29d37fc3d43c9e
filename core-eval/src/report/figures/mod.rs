//! Figures, each a function of the files of a results folder, as PNG and as SVG with text.

mod attention;
mod canvas;
mod comparison;
mod foregrounds;
mod forest;
mod grid;
mod learning;
mod losses;
mod norm;
mod placed;
mod probe;
mod prompt;
mod runs;
mod settings;
mod sheets;
mod surface;
mod tables;
mod tokens;
mod tradeoff;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use indexmap::IndexSet;

use super::{SummaryRow, font};
use crate::attention_file::ATTENTION;
use crate::metrics::Metric;
use attention::add_attention;
use canvas::Figure;
use probe::{Choice, TrainedVariants};
use prompt::PromptFigure;
use runs::Sources;
use sheets::{Images, below_images, overview_columns};
use tables::ResultTables;

pub use attention::update_attention;
pub use foregrounds::{Foreground, draw_foregrounds};

/// The folder of figures in a results folder.
pub const FIGURES: &str = "figures";

/// What is drawn.
#[derive(Debug, Clone, Default)]
pub struct FigureOptions {
    /// A prompt for the figure of context tokens, in addition to the other figures.
    pub prompt: Option<String>,
    /// The concept of that figure. Absent: the first.
    pub concept: Option<String>,
    /// The sibling word of that figure. Absent: the nearest word of the vocabulary.
    pub sibling: Option<String>,
    /// The variants that are drawn. Empty: all.
    pub variants: Vec<String>,
}

/// What was drawn.
#[derive(Debug, Clone, Default)]
pub struct Drawn {
    /// The files.
    pub files: Vec<PathBuf>,
    /// What could not be drawn, and why.
    pub left_out: Vec<String>,
}

/// Draws every figure for which the folder has rows or images, into `figures/`.
///
/// # Errors
/// Unreadable or damaged files, an unwritable folder; a prompt that cannot be drawn; a variant that the
/// folder does not have.
pub fn draw_all(results: &Path, options: &FigureOptions) -> Result<Drawn> {
    font::register()?;
    let tables = ResultTables::read(results, options)?;
    let folder = results.join(FIGURES);
    let mut drawing = Drawing {
        tables,
        options,
        folder,
        drawn: Drawn::default(),
    };
    drawing.summaries()?;
    drawing.settings()?;
    drawing.curves()?;
    drawing.tokens()?;
    drawing.sheets()?;
    drawing.learning()?;
    Ok(drawing.drawn)
}

/// The figures of a folder while they are drawn.
struct Drawing<'a> {
    tables: ResultTables<'a>,
    options: &'a FigureOptions,
    folder: PathBuf,
    drawn: Drawn,
}

/// The metrics that a summary has.
fn metrics_of(rows: &[SummaryRow]) -> Vec<Metric> {
    let all = Metric::ALL.iter().copied();
    all.filter(|metric| rows.iter().any(|row| row.metric == *metric))
        .collect()
}

impl Drawing<'_> {
    /// A figure in the folder, which is made when the first is drawn.
    fn figure<'b>(folder: &'b Path, name: &'b str, size: (u32, u32)) -> Result<Figure<'b>> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(Figure { folder, name, size })
    }

    fn leave_out(&mut self, what: &str) {
        self.drawn.left_out.push(what.to_string());
    }

    /// The forest plot and the trade-off of every protocol.
    fn summaries(&mut self) -> Result<()> {
        for (suffix, rows) in &self.tables.summaries {
            let all = names(rows.iter().map(|row| &row.variant));
            let baseline = all.first().cloned();
            let shown = |variant: &String| {
                Some(variant) == baseline.as_ref() || self.tables.is_chosen(variant, self.options)
            };
            let rows: Vec<SummaryRow> = rows
                .iter()
                .filter(|row| shown(&row.variant))
                .cloned()
                .collect();
            let variants: Vec<String> = all.into_iter().filter(shown).collect();
            let metrics = metrics_of(&rows);
            if metrics.is_empty() {
                continue;
            }
            if variants.len() > 1 {
                let name = format!("forest{suffix}");
                let size = forest::size(&metrics, &variants);
                let figure = Self::figure(&self.folder, &name, size)?;
                self.drawn.files.extend(figure.draw(&[], |area| {
                    forest::draw_forest(area, &rows, &metrics, &variants)
                })?);
            }
            let pairs = tradeoff::tradeoffs(&metrics);
            if !pairs.is_empty() {
                let name = format!("tradeoff{suffix}");
                let figure = Self::figure(&self.folder, &name, tradeoff::size(&pairs))?;
                self.drawn.files.extend(figure.draw(&[], |area| {
                    tradeoff::draw_tradeoffs(area, &rows, &pairs, &variants)
                })?);
            }
        }
        Ok(())
    }

    /// The curves over settings, under every protocol, where variants change a number of the recipe alone.
    fn settings(&mut self) -> Result<()> {
        let mut settings = self.tables.settings.clone();
        let Some(first) = settings.first().map(|row| row.variant.clone()) else {
            return Ok(());
        };
        settings.retain(|row| {
            row.variant == first || self.tables.is_chosen(&row.variant, self.options)
        });
        let curves = settings::curves(&settings);
        for (suffix, rows) in &self.tables.summaries {
            let metrics = metrics_of(rows);
            if metrics.is_empty() {
                continue;
            }
            let name = format!("settings{suffix}");
            let size = settings::size(&metrics, &curves);
            let figure = Self::figure(&self.folder, &name, size)?;
            self.drawn.files.extend(figure.draw(&[], |area| {
                settings::draw_settings(area, rows, &metrics, &curves, &first)
            })?);
        }
        Ok(())
    }

    /// The terms of the loss, and the norm with the window of rescaling.
    fn curves(&mut self) -> Result<()> {
        let mut steps = self.tables.sources.steps()?;
        if steps.is_empty() {
            if self.tables.curves.is_empty() {
                return Ok(());
            }
            steps = runs::steps_of_curves(&self.tables.curves);
            self.leave_out(
                "losses: only the weighted total, since the runs are gone, whose metrics.csv has the single terms",
            );
        }
        steps.retain(|variant, _| self.tables.is_chosen(variant, self.options));
        if steps.is_empty() {
            return Ok(());
        }
        let variants = &self.tables.variants;
        let terms = runs::terms(&steps);
        let figure = Self::figure(&self.folder, "losses", losses::size(&terms))?;
        self.drawn.files.extend(figure.draw(&[], |area| {
            losses::draw_losses(area, &steps, &terms, variants)
        })?);
        steps.retain(|_, runs| !losses::means(runs, runs::EMBEDDING_NORM).is_empty());
        if !steps.is_empty() {
            let window = self.tables.sources.rescaling();
            let figure = Self::figure(&self.folder, "norm", norm::SIZE)?;
            self.drawn
                .files
                .extend(figure.draw(&[], |area| norm::draw_norm(area, &steps, window, variants))?);
        }
        Ok(())
    }

    /// The cosines of context tokens.
    fn tokens(&mut self) -> Result<()> {
        let mut rows = self.tables.tokens.clone();
        rows.retain(|row| self.tables.is_chosen(&row.variant, self.options));
        let scores = self.tables.scores.rows.iter();
        let groups: BTreeMap<&str, &str> = scores.map(|row| (&*row.concept, &*row.group)).collect();
        let panels = tokens::panels(&rows, &groups, None, &self.tables.variants);
        if !panels.is_empty() {
            let figure = Self::figure(&self.folder, "tokens", tokens::size(&panels))?;
            self.drawn
                .files
                .extend(figure.draw(&[], |area| tokens::draw_tokens(area, &panels))?);
        }
        let Some(prompt) = &self.options.prompt else {
            return Ok(());
        };
        let name = format!("tokens-{}", slug(prompt));
        let failed = match self.compare(prompt, &name) {
            Ok(drawn) => {
                self.drawn.files.extend(drawn.files);
                self.drawn.left_out.extend(drawn.left_out);
                return Ok(());
            }
            Err(error) => error,
        };
        let panels = tokens::panels(&rows, &groups, Some(prompt), &self.tables.variants);
        if panels.is_empty() {
            bail!(
                "`{prompt}` is none of the prompts in tokens.csv, so runs and model are needed: {failed:#}"
            );
        }
        let figure = Self::figure(&self.folder, &name, tokens::size(&panels))?;
        self.drawn
            .files
            .extend(figure.draw(&[], |area| tokens::draw_tokens(area, &panels))?);
        self.leave_out(&format!(
            "{name}: only the cosines that tokens.csv holds, without attention maps: {failed:#}"
        ));
        Ok(())
    }

    /// Compares a prompt in every chosen method, as a figure and in `attention.json`.
    fn compare(&self, prompt: &str, name: &str) -> Result<Drawn> {
        let tables = &self.tables;
        let mut sources = Sources::default();
        for (place, source) in &tables.sources.0 {
            if tables.is_chosen(&place.0, self.options) {
                sources.0.insert(place.clone(), source.clone());
            }
        }
        let choice = Choice {
            prompt,
            concept: tables.concept(self.options.concept.as_deref())?,
            sibling: self.options.sibling.as_deref(),
        };
        let trained = TrainedVariants::find(&sources, choice)?;
        let probe = trained.probe(None, &AtomicBool::new(false))?;
        let drawing = PromptFigure::new(&probe, choice, &tables.variants);
        let figure = Self::figure(&self.folder, name, drawing.size())?;
        let mut files = figure.draw(&drawing.images(), |area| drawing.draw(area))?;
        add_attention(tables.results, &trained, &probe, choice)?;
        files.push(tables.results.join(ATTENTION));
        let left_out = probe.left_out.iter();
        Ok(Drawn {
            files,
            left_out: left_out.map(|what| format!("{name}: {what}")).collect(),
        })
    }

    /// Photos and images side by side.
    fn sheets(&mut self) -> Result<()> {
        let tables = &self.tables;
        let images = Images::new(tables.results, &tables.scores, &tables.sources);
        let (wanted, there) = images.counts();
        if wanted == 0 {
            return Ok(());
        }
        if there == 0 {
            self.leave_out(
                "grids: no image is there, as in images/; run the experiment to generate them",
            );
            return Ok(());
        }
        let chosen = |variant: &&String| tables.is_chosen(variant, self.options);
        let variants: Vec<String> = tables.variants.iter().filter(chosen).cloned().collect();
        let mut sheets = Vec::new();
        let summary = tables.summaries.first().map_or(&[][..], |(_, rows)| rows);
        let metric = below_images(&tables.scores.metrics);
        let columns = overview_columns(&variants, summary, &tables.sources, metric);
        sheets.extend(
            images
                .overview(&columns)?
                .map(|sheet| ("overview".to_string(), sheet)),
        );
        sheets.extend(
            images
                .comparison(&variants)?
                .map(|sheet| ("comparison".to_string(), sheet)),
        );
        sheets.extend(
            images
                .test_time()?
                .map(|sheet| ("test-time".to_string(), sheet)),
        );
        for concept in images.concepts() {
            sheets.push((format!("grid-{concept}"), images.full(concept, &variants)?));
        }
        let without_photos = images.without_photos().join(", ");
        let mut files = Vec::new();
        for (name, sheet) in sheets {
            files.extend(sheet.draw(Self::figure(&self.folder, &name, (1, 1))?)?);
        }
        self.drawn.files.extend(files);
        if !without_photos.is_empty() {
            self.leave_out(&format!(
                "grids: the photos of {without_photos}, which lie where the config.toml of their runs says"
            ));
        }
        if there < wanted {
            let gone = wanted - there;
            self.leave_out(&format!(
                "grids: {gone} of {wanted} images are gone and have empty places; run the experiment to generate them"
            ));
        }
        Ok(())
    }

    /// The learning curves of the mini world's networks.
    fn learning(&mut self) -> Result<()> {
        let curves = learning::learning_curves(self.tables.results)?;
        if !curves.is_empty() {
            let figure = Self::figure(&self.folder, "learning", learning::size(&curves))?;
            self.drawn
                .files
                .extend(figure.draw(&[], |area| learning::draw_learning(area, &curves))?);
        }
        Ok(())
    }
}

/// A prompt as part of a file's name.
fn slug(prompt: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let text: String = prompt.replace("{}", "S").chars().map(plain).collect();
    let words: Vec<&str> = text.split('-').filter(|word| !word.is_empty()).collect();
    words.join("-").chars().take(60).collect()
}

/// Names in order of first appearance.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let names: IndexSet<&String> = all.collect();
    names.into_iter().cloned().collect()
}

/// The variants that have rows, in the order of all variants.
fn trained<'a>(rows: impl Iterator<Item = &'a String>, variants: &[String]) -> Vec<String> {
    let trained = names(rows);
    let known: Vec<String> = variants
        .iter()
        .filter(|variant| trained.contains(variant))
        .cloned()
        .collect();
    if known.is_empty() { trained } else { known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_nan_are_left_out_of_a_figure() {
        let folder = tempfile::tempdir().expect("a folder");
        let header =
            "variant,metric,concept,mean,low,high,difference,difference_low,difference_high,n";
        let mut text = format!("{header}\n");
        for metric in Metric::ALL {
            let column = metric.column();
            text += &format!("CoRe,{column},all,0.2,0.1,0.3,,,,3\n");
            text += &format!("diverged,{column},all,NaN,0.1,0.3,NaN,-0.1,0.1,3\n");
        }
        std::fs::write(folder.path().join("summary.csv"), text).expect("a file");
        let drawn = draw_all(folder.path(), &FigureOptions::default()).expect("figures");
        let names: Vec<String> = drawn
            .files
            .iter()
            .map(|file| {
                file.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(
            names,
            ["forest.png", "forest.svg", "tradeoff.png", "tradeoff.svg"]
        );
    }

    #[test]
    fn variants_keep_their_colours_when_some_are_left_out() {
        let all: Vec<String> = ["class word", "TI", "CoRe"].map(String::from).to_vec();
        let rows = ["CoRe", "TI"].map(String::from);
        let some = trained(rows.iter(), &all);
        assert_eq!(some, ["TI", "CoRe"]);
        assert_eq!(canvas::color(&all, "TI"), canvas::palette(1));
    }

    #[test]
    fn a_prompt_names_a_file() {
        assert_eq!(
            slug("a {} on the Beach, at night"),
            "a-s-on-the-beach-at-night"
        );
        assert_eq!(slug("../{}"), "s");
    }
}
