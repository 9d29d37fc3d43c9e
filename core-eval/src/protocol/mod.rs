//! How scores are computed, by name and in writing.

mod kind;
mod presets;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use core_model::files::sha256;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::foregrounds::MASKS;
use crate::metrics::{Feature, JudgeFolders, cosine};
use crate::pictures::picture_files;
use crate::statistics::mean;

/// What CLIP reads of a prompt in which `{}` stands for the concept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextRule {
    /// `{}` becomes the concept's super-category.
    ClassWord,
    /// `{}` is taken out.
    Removed,
    /// `{}` becomes the word that the generator was given.
    AsItIs,
}

/// What becomes of a cosine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The cosine.
    Raw,
    /// 100 times the cosine.
    Hundredfold,
    /// 2.5 max(cosine, 0), CLIPScore (Hessel et al. 2021).
    ClipScore,
}

/// Which photos an image is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// All of its concept: the mean of the cosines.
    All,
    /// The one of its own number; a single photo goes with every image.
    OneToOne,
}

/// How one number is made of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Averaging {
    /// Within a concept first, then over concepts.
    Macro,
    /// Over all images, for CLIP-I and DINO over all pairs of image and photo.
    Pooled,
}

/// What is done with all-black images, which a safety checker leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blank {
    /// Scored like others.
    Scored,
    /// No scores.
    LeftOut,
}

/// A way of scoring.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Protocol {
    /// Its name in files.
    pub name: &'static str,
    /// Where the rules are from.
    pub source: &'static str,
    /// The encoders that the source used.
    pub encoders: &'static str,
    /// What CLIP reads.
    pub text: TextRule,
    /// Of CLIP-T.
    pub clip_t_scale: Scale,
    /// Of CLIP-I and DINO.
    pub image_scale: Scale,
    /// Images and photos.
    pub pairing: Pairing,
    /// From scores to one number.
    pub averaging: Averaging,
    /// Only the first so many images of every prompt are scored; all when absent.
    pub images_per_prompt: Option<usize>,
    /// All-black images.
    pub blank: Blank,
    /// Whether CLIP-I and DINO see foregrounds alone, on black.
    pub masked: bool,
    /// The kinds of prompts that CLIP-I and DINO leave out.
    pub left_out: &'static [&'static str],
}

impl Protocol {
    /// The protocol of a name.
    ///
    /// # Errors
    /// An unknown name, with the known ones.
    pub fn named(name: &str) -> Result<&'static Self> {
        match presets::PRESETS.iter().find(|preset| preset.name == name) {
            Some(protocol) => Ok(protocol),
            None => {
                let known = presets::PRESETS.each_ref().map(|preset| preset.name);
                bail!("protocol `{name}` is none of: {}", known.join(", "))
            }
        }
    }

    /// Refuses to score without masks what must be masked.
    ///
    /// # Errors
    /// The protocol needs masks and there are none, or the other way round.
    pub fn check_masks(&self, given: bool) -> Result<()> {
        match (self.masked, given) {
            (true, false) => bail!(
                "protocol `{}` scores masked foregrounds and needs masks of images and photos; name \
                 a CLIPSeg model that makes them (`clipseg` below [evaluation], --clipseg of \
                 `core-eval score`), give files (--generated-masks, --references-masks), or use \
                 protocol `dreambooth`",
                self.name
            ),
            (false, true) => bail!(
                "protocol `{}` scores whole pictures and uses no masks; drop the masks or the \
                 CLIPSeg model, or use protocol `core`",
                self.name
            ),
            _ => Ok(()),
        }
    }

    /// Refuses a kind of prompts of which one cannot tell whether it counts.
    ///
    /// # Errors
    /// An unknown kind where some kinds are left out, with the known ones.
    pub fn check_kind(&self, kind: &str) -> Result<()> {
        ensure!(
            self.left_out.is_empty() || kind::canonical(kind).is_some(),
            "protocol `{}` leaves prompts of the kinds {} out of CLIP-I and DINO, and `{kind}` is \
             no known kind; use one of: {}",
            self.name,
            self.left_out.join(", "),
            kind::names()
        );
        Ok(())
    }

    /// Whether CLIP-I and DINO are given for prompts of a kind.
    pub fn scores_identity(&self, kind: &str) -> bool {
        kind::canonical(kind).is_none_or(|kind| !self.left_out.contains(&kind))
    }

    /// Refuses numbers of images and photos that cannot be paired.
    ///
    /// # Errors
    /// One photo an image is wanted and there are other numbers of them.
    pub fn check_counts(&self, concept: &str, images: usize, photos: usize) -> Result<()> {
        ensure!(
            self.pairing == Pairing::All || photos == 1 || photos == images,
            "protocol `{}` pairs the n-th image with the n-th photo, but {concept} has {images} \
             images and {photos} photos; give as many, or a single photo, or use protocol \
             `dreambooth`",
            self.name
        );
        Ok(())
    }

    /// What CLIP reads of a prompt: `{}` stands for the concept, whose word in prompts is `word`
    /// and whose super-category is `class_word`. A prompt without `{}` is read as it is.
    ///
    /// # Errors
    /// The rule needs a word that is not known.
    pub fn text(
        &self,
        prompt: &str,
        word: Option<&str>,
        class_word: Option<&str>,
    ) -> Result<String> {
        if !prompt.contains("{}") {
            return Ok(prompt.to_string());
        }
        let (word, name) = match self.text {
            TextRule::ClassWord => (class_word, "super_category"),
            TextRule::AsItIs => (word, "placeholder_token"),
            TextRule::Removed => {
                let left = prompt.replace("{}", " ");
                return Ok(left.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        };
        let word = word.with_context(|| {
            format!(
                "the prompt `{prompt}` holds {{}}, which protocol `{}` replaces by the concept's \
                 {name}; write that into the prompt, or give the photos a concept.toml that says it",
                self.name
            )
        })?;
        Ok(prompt.replace("{}", word))
    }

    /// CLIP-T of a cosine.
    pub fn clip_t(&self, cosine: f64) -> f64 {
        self.clip_t_scale.of(cosine)
    }

    /// CLIP-I or DINO of the `index`-th image of a concept with this feature.
    pub fn identity(&self, image: &[f32], index: usize, photos: &[Feature]) -> f64 {
        let of = |photo: &Feature| self.image_scale.of(cosine(image, photo));
        match self.pairing {
            Pairing::OneToOne => of(&photos[index % photos.len()]),
            Pairing::All => mean(photos.iter().map(of)).unwrap_or(f64::NAN),
        }
    }

    /// Whether an image is scored: the `number`-th of its prompt, from 0.
    pub fn counts(&self, number: usize, blank: bool) -> bool {
        let among = self.images_per_prompt.is_none_or(|most| number < most);
        among && !(blank && self.blank == Blank::LeftOut)
    }

    /// `protocol.json`: the rules, and the digest of every file of the judges and of every photo in
    /// the folders of concepts.
    ///
    /// # Errors
    /// Unreadable files of a judge or photos.
    pub fn to_json<'a>(
        &self,
        folders: JudgeFolders<'_>,
        concepts: impl IntoIterator<Item = (&'a str, &'a Path)>,
    ) -> Result<String> {
        let (mut photos, mut photos_masks) = (Map::new(), Map::new());
        for (concept, folder) in concepts {
            let files = picture_files(folder)?;
            photos.insert(concept.to_string(), Value::Object(digests(files)?));
            let masks = folder.join(MASKS);
            if self.masked && masks.is_dir() {
                let files = picture_files(&masks)?;
                photos_masks.insert(concept.to_string(), Value::Object(digests(files)?));
            }
        }
        photos.sort_keys();
        photos_masks.sort_keys();
        let mut protocol = json!({
            "protocol": self,
            "clip": judge(folders.clip)?,
            "dino": judge(folders.dino)?,
            "photos": photos,
        });
        if self.masked {
            protocol["outside_the_mask"] = json!("black");
            protocol["masks_beside_photos"] = json!(photos_masks);
            protocol["generated_masks"] = match folders.clipseg {
                Some(_) => json!("CLIPSeg, asked for the class word, probability above 0.5"),
                None => json!("files"),
            };
            if let Some(clipseg) = folders.clipseg {
                protocol["clipseg"] = judge(clipseg)?;
            }
        }
        Ok(serde_json::to_string_pretty(&protocol)? + "\n")
    }
}

impl Scale {
    fn of(self, cosine: f64) -> f64 {
        match self {
            Self::Raw => cosine,
            Self::Hundredfold => 100.0 * cosine,
            Self::ClipScore => 2.5 * cosine.max(0.0),
        }
    }
}

/// What a judge is made of: its preprocessing, and the SHA-256 of each file by name.
fn judge(folder: &Path) -> Result<Value> {
    let at = || folder.display().to_string();
    let preprocessor = folder.join("preprocessor_config.json");
    let mut preprocessing = Value::Null;
    if preprocessor.exists() {
        preprocessing = serde_json::from_str(&core_model::files::read_to_string(&preprocessor)?)
            .with_context(|| preprocessor.display().to_string())?;
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(at)? {
        let path = entry.with_context(at)?.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        if path.is_file() && matches!(ending.as_ref(), "json" | "safetensors" | "bin" | "txt") {
            files.push(path);
        }
    }
    Ok(json!({ "sha256": digests(files)?, "preprocessing": preprocessing }))
}

/// The SHA-256 of files by name.
fn digests(mut files: Vec<PathBuf>) -> Result<Map<String, Value>> {
    files.sort();
    let mut digests = Map::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        digests.insert(name.into_owned(), json!(sha256(&path)?));
    }
    Ok(digests)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Protocol {
        Protocol::named(name).unwrap()
    }

    #[test]
    fn an_unknown_protocol_is_refused_with_the_known_ones() {
        let message = Protocol::named("clip").unwrap_err().to_string();
        assert!(
            message.contains(
                "dreambooth, core, textual-inversion, custom-diffusion, oft, dreambench-plus"
            ),
            "{message}"
        );
    }

    #[test]
    fn the_masked_protocol_refuses_to_go_without_masks_and_others_with_them() {
        assert!(named("core").check_masks(false).is_err());
        assert!(named("core").check_masks(true).is_ok());
        assert!(named("dreambooth").check_masks(false).is_ok());
        assert!(named("oft").check_masks(true).is_err());
    }

    #[test]
    fn the_masked_protocol_leaves_style_and_outfit_out_of_identity_however_they_are_called() {
        for kind in ["style", "Stylisation", "outfit", "outfit change"] {
            assert!(!named("core").scores_identity(kind), "{kind}");
            assert!(named("dreambooth").scores_identity(kind), "{kind}");
        }
        assert!(named("core").scores_identity("background"));
        let message = named("core").check_kind("styles").unwrap_err().to_string();
        assert!(
            message.contains("`styles`") && message.contains("background"),
            "{message}"
        );
        assert!(named("dreambooth").check_kind("styles").is_ok());
    }

    #[test]
    fn the_text_rule_says_what_stands_for_the_concept() {
        let text = |name: &str| named(name).text("a {} on a red {}", Some("<s>"), Some("dog"));
        assert_eq!(text("dreambooth").unwrap(), "a dog on a red dog");
        assert_eq!(text("textual-inversion").unwrap(), "a on a red");
        assert_eq!(text("oft").unwrap(), "a <s> on a red <s>");
        let message = named("core").text("a {}", Some("<s>"), None).unwrap_err();
        assert!(message.to_string().contains("super_category"));
        assert_eq!(named("core").text("a cat", None, None).unwrap(), "a cat");
    }

    #[test]
    fn scales_are_those_of_the_sources() {
        assert_eq!(named("dreambooth").clip_t(-0.5), -0.5);
        assert_eq!(named("custom-diffusion").clip_t(0.3), 0.75);
        assert_eq!(named("custom-diffusion").clip_t(-0.3), 0.0);
        assert_eq!(named("dreambench-plus").clip_t(0.25), 25.0);
        let photos = [vec![1.0, 0.0], vec![0.0, 1.0]];
        let image = [0.6, 0.8];
        assert!((named("custom-diffusion").identity(&image, 0, &photos) - 0.7).abs() < 1e-7);
        assert!((named("dreambench-plus").identity(&image, 1, &photos) - 80.0).abs() < 1e-5);
    }

    #[test]
    fn pairs_need_as_many_photos_as_images_or_one() {
        let protocol = named("dreambench-plus");
        assert!(protocol.check_counts("dog", 5, 5).is_ok());
        assert!(protocol.check_counts("dog", 5, 1).is_ok());
        let message = protocol.check_counts("dog", 5, 4).unwrap_err().to_string();
        assert!(
            message.contains("dog has 5 images and 4 photos"),
            "{message}"
        );
        assert!(named("oft").check_counts("dog", 5, 4).is_ok());
    }

    #[test]
    fn oft_counts_the_first_four_images_that_are_not_black() {
        assert!(named("oft").counts(3, false));
        assert!(!named("oft").counts(4, false));
        assert!(!named("oft").counts(0, true));
        assert!(named("dreambooth").counts(99, true));
    }
}
