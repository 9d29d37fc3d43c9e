//! `index.html`: everything that people see, in one file without any name of a variant, file or score.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use core_model::image_processor::{Filter, crop, load_image, resize};
use image::{ImageFormat, RgbImage};
use serde::Serialize;

use super::material::Material;
use super::settings::Settings;
use super::trials::{Origin, Plan, Trial};
use crate::base64::base64;

/// The page without a study.
const TEMPLATE: &str = include_str!("../../assets/study.html");

/// How long a pair is shown before an answer is taken, in milliseconds.
const MINIMUM_MS: u32 = 800;

/// Texts by those who ask.
#[derive(Debug, Clone, Default)]
pub(super) struct Texts {
    /// What a person agrees to, in paragraphs.
    pub(super) consent: Vec<String>,
    /// Whom to write to, and where to send the votes.
    pub(super) contact: Vec<String>,
}

/// The data in the page. No field holds a name of a variant, of a concept or of a file.
#[derive(Debug, Serialize)]
struct Data<'a> {
    study: &'a str,
    minimum_ms: u32,
    consent: &'a [String],
    contact: &'a [String],
    questions: Vec<QuestionData>,
    catch_questions: Vec<QuestionData>,
    sentences: Vec<&'a str>,
    references: Vec<Vec<&'a str>>,
    practice: Vec<TrialData<'a>>,
    /// By person; only that of `person` where the page is for one.
    people: BTreeMap<usize, Vec<TrialData<'a>>>,
}

#[derive(Debug, Serialize)]
struct QuestionData {
    name: &'static str,
    text: &'static str,
}

#[derive(Debug, Serialize)]
struct TrialData<'a> {
    pair: &'a str,
    left: &'a str,
    right: &'a str,
    sentence: usize,
    references: usize,
    catch: bool,
    repeat_of: Option<usize>,
}

/// The pages of a study share these.
pub(super) struct Pages<'a> {
    /// What is shown.
    pub(super) plan: &'a Plan,
    /// Where it comes from.
    pub(super) material: &'a Material,
    /// The texts.
    pub(super) texts: &'a Texts,
    /// PNG files by the index of the image.
    pub(super) images: &'a [Vec<u8>],
}

impl Pages<'_> {
    /// The page of the people with these numbers, counted from 1.
    ///
    /// # Errors
    /// A text that cannot be written as JSON.
    pub(super) fn html(&self, settings: &Settings, people: &[usize]) -> Result<String> {
        let question = |question: &super::Question| QuestionData {
            name: question.name(),
            text: question.text(),
        };
        let of_person = |person: &usize| {
            let trials = self.plan.people[person - 1].iter();
            (*person, trials.map(|trial| self.trial(trial)).collect())
        };
        let references = self.plan.references.iter();
        let data = Data {
            study: &settings.study,
            minimum_ms: MINIMUM_MS,
            consent: &self.texts.consent,
            contact: &self.texts.contact,
            questions: settings.questions.iter().map(question).collect(),
            catch_questions: settings.catch_questions().iter().map(question).collect(),
            sentences: self
                .material
                .prompts
                .iter()
                .map(|p| p.words.as_str())
                .collect(),
            references: references
                .map(|of| of.iter().map(|i| self.name(*i)).collect())
                .collect(),
            practice: self
                .plan
                .practice
                .iter()
                .map(|trial| self.trial(trial))
                .collect(),
            people: people.iter().map(of_person).collect(),
        };
        // `<` would let a text end the script.
        let json = serde_json::to_string(&data)?.replace('<', "\\u003c");
        let used = self.used(people);
        let images = self.image_scripts(&used, &settings.variants)?;
        Ok(TEMPLATE
            .replacen("<!-- IMAGES -->", &images, 1)
            .replacen("{\"study\":null}", &json, 1))
    }

    fn name(&self, image: usize) -> &str {
        &self.plan.images[image].0
    }

    fn trial(&self, trial: &Trial) -> TrialData<'_> {
        let pair = &self.plan.pairs[trial.pair];
        let (first, second) = (self.name(pair.first.image), self.name(pair.second.image));
        let (left, right) = match trial.first_is_left {
            true => (first, second),
            false => (second, first),
        };
        TrialData {
            pair: &pair.id,
            left,
            right,
            sentence: pair.prompt,
            references: self.material.prompts[pair.prompt].concept,
            catch: pair.is_catch,
            repeat_of: trial.repeat_of,
        }
    }

    /// The images that these people see, by their random names.
    fn used(&self, people: &[usize]) -> BTreeMap<&str, usize> {
        let trials = people
            .iter()
            .flat_map(|person| &self.plan.people[person - 1]);
        let trials = trials.chain(&self.plan.practice);
        let pairs: BTreeSet<usize> = trials.map(|trial| trial.pair).collect();
        let sides = pairs.into_iter().flat_map(|pair| {
            let pair = &self.plan.pairs[pair];
            [pair.first.image, pair.second.image]
        });
        let all = sides.chain(self.plan.references.iter().flatten().copied());
        all.map(|image| (self.name(image), image)).collect()
    }

    fn image_scripts(&self, used: &BTreeMap<&str, usize>, variants: &[String]) -> Result<String> {
        let mut scripts = String::new();
        for (name, image) in used {
            let text = without(base64(&self.images[*image]), variants);
            writeln!(
                scripts,
                "<script type=\"text/plain\" id=\"image-{name}\">{text}</script>"
            )?;
        }
        Ok(scripts)
    }
}

/// Breaks lines in base64 text wherever it happens to spell one of these names, so that a search for them
/// finds nothing. Readers of base64 skip line breaks.
fn without(mut text: String, names: &[String]) -> String {
    for name in names.iter().filter(|name| name.len() > 1) {
        while let Some(at) = text.find(name.as_str()) {
            text.insert(at + 1, '\n');
        }
    }
    text
}

/// The pixels of an image as a new PNG file, which holds nothing but pixels. The longer side of generated
/// images has at most `side` pixels, photos are cut to squares as for training.
///
/// # Errors
/// An image that cannot be read.
pub(super) fn encode(origin: &Origin, side: u32) -> Result<Vec<u8>> {
    let pixels = match origin {
        Origin::Generated(file) => reduced(load_image(file)?, side),
        Origin::Reference(file) => square(file, side)?,
        Origin::Photo { file, like } => {
            let (width, height) = reduced(load_image(like)?, side).dimensions();
            square(file, width.min(height))?
        }
    };
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

fn square(file: &Path, side: u32) -> Result<RgbImage> {
    let photo = load_image(file)?;
    let (width, height) = photo.dimensions();
    Ok(crop(&photo, side.min(width.min(height))))
}

fn reduced(image: RgbImage, side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let longer = width.max(height);
    if longer <= side {
        return image;
    }
    let scaled = |size: u32| (u64::from(size) * u64::from(side) / u64::from(longer)).max(1) as u32;
    resize(&image, scaled(width), scaled(height), Filter::Bicubic)
}

/// Refuses texts that name a variant, which would tell people what is compared.
///
/// # Errors
/// Naming file and variant.
pub(super) fn check_blind(file: &Path, text: &str, variants: &[String]) -> Result<()> {
    for variant in variants {
        let mut places = text.match_indices(variant.as_str());
        let is_word = |(at, word): (usize, &str)| {
            let before = text[..at].chars().next_back();
            let after = text[at + word.len()..].chars().next();
            ![before, after]
                .into_iter()
                .flatten()
                .any(char::is_alphanumeric)
        };
        ensure!(
            !places.any(is_word),
            "{}: names the variant `{variant}`, so people would know what is compared; take it out",
            file.display()
        );
    }
    Ok(())
}

/// The paragraphs of a text file.
///
/// # Errors
/// An unreadable or empty file.
pub(super) fn paragraphs(file: &Path, variants: &[String]) -> Result<Vec<String>> {
    let text = core_model::files::read_to_string(file)?;
    check_blind(file, &text, variants)?;
    let paragraphs = text
        .split("\n\n")
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let paragraphs: Vec<String> = paragraphs.map(String::from).collect();
    let first = paragraphs.first();
    first.with_context(|| format!("{}: is empty; expected text", file.display()))?;
    Ok(paragraphs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_base64_happens_to_spell_is_broken_up() {
        let names = ["CoRe".to_string(), "x".into()];
        let text = without("aaCoReCoRexCo".into(), &names);
        assert!(!text.contains("CoRe"), "{text}");
        assert_eq!(text.replace('\n', ""), "aaCoReCoRexCo");
    }

    #[test]
    fn texts_that_name_a_variant_are_refused() {
        let check = |text: &str| check_blind(Path::new("consent.txt"), text, &["CoRe".into()]);
        let message = check("We compare CoRe with others.")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("consent.txt") && message.contains("`CoRe`"),
            "{message}"
        );
        check("The CoReference of words, the core of the matter.").unwrap();
    }

    #[test]
    fn large_images_are_made_smaller_in_their_proportions() {
        let image = RgbImage::from_pixel(900, 300, image::Rgb([9, 9, 9]));
        assert_eq!(reduced(image, 300).dimensions(), (300, 100));
    }
}
