//! Protocols: named rules by which scores are computed.

mod kind;
mod presets;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

pub use kind::is_unrelated;

use crate::metrics::Metric;
use crate::statistics::mean;

/// What `{}`, which stands for the concept in a prompt, becomes in the text that images are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextRule {
    /// `{}` becomes the concept's super-category.
    ClassWord,
    /// `{}` is removed.
    Removed,
    /// `{}` becomes the word that the image was generated with.
    AsItIs,
}

/// How a similarity, which is a cosine, is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Not at all.
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
    /// All photos of its concept; the score is the mean.
    All,
    /// The photo of its own name, in experiments the n-th photo for the n-th image; a single photo is paired
    /// with every image.
    OneToOne,
}

/// How all scores are combined into one mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Averaging {
    /// The mean over concepts of the mean of each concept.
    Macro,
    /// The mean over all images; for metrics that compare with photos, over all pairs of image and photo.
    Pooled,
}

/// How all-black images, which a safety checker produces, are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blank {
    /// They are scored like others.
    Scored,
    /// They have no scores.
    LeftOut,
}

/// The rules of a protocol.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Protocol {
    /// The name of the protocol.
    pub name: &'static str,
    /// The source of the rules.
    pub source: &'static str,
    /// The encoders that the source used.
    pub encoders: &'static str,
    /// The text that images are compared with.
    pub text: TextRule,
    /// The scale of metrics that compare with the text.
    #[serde(rename = "clip_t_scale")]
    pub text_scale: Scale,
    /// The scale of metrics that compare with photos.
    pub image_scale: Scale,
    /// Which photos an image is compared with.
    pub pairing: Pairing,
    /// How scores are combined.
    pub averaging: Averaging,
    /// How many images per prompt are scored, from the first; all when absent.
    pub images_per_prompt: Option<usize>,
    /// How all-black images are treated.
    pub blank: Blank,
    /// Whether metrics that compare with photos read foregrounds only, on black.
    pub masked: bool,
    /// The kinds of prompts whose images are not compared with photos.
    pub left_out: &'static [&'static str],
}

impl Protocol {
    /// The protocol of a name.
    ///
    /// # Errors
    /// An unknown name; the message lists the known ones.
    pub fn named(name: &str) -> Result<&'static Self> {
        let mut presets = presets::PRESETS.iter();
        let found = presets.find(|preset| preset.name == name);
        found.with_context(|| {
            let known: Vec<&str> = Self::names().collect();
            format!("protocol `{name}` is none of: {}", known.join(", "))
        })
    }

    /// The names of all protocols.
    pub fn names() -> impl Iterator<Item = &'static str> {
        presets::PRESETS.iter().map(|preset| preset.name)
    }

    /// Refuses masks that are missing and masks that are not used. Masked protocols need them, and so does
    /// a metric that reads `faces`: they say which images show one.
    ///
    /// # Errors
    /// Masks are needed and there are none, or there are masks and nothing uses them.
    pub fn check_masks(&self, given: bool, faces: bool) -> Result<()> {
        let name = self.name;
        match (self.masked, faces, given) {
            (true, _, false) => bail!(
                "protocol `{name}` scores masked foregrounds and needs masks of images and photos; name \
                 a CLIPSeg model that makes them (`clipseg` below [evaluation], --clipseg of \
                 `core-eval score`), give files (--generated-masks, --references-masks), or use \
                 protocol `dreambooth`"
            ),
            (false, true, false) => bail!(
                "`identity` needs masks, which say in which images nobody is seen; name a CLIPSeg model \
                 that looks for the class word (`clipseg` below [evaluation], --clipseg of `core-eval \
                 score`), or give files (--generated-masks, --references-masks)"
            ),
            (false, false, true) => bail!(
                "protocol `{name}` scores whole images and uses no masks; drop the masks or the \
                 CLIPSeg model, or use protocol `core`"
            ),
            _ => Ok(()),
        }
    }

    /// Refuses an unknown kind of prompts where some kinds are left out.
    ///
    /// # Errors
    /// An unknown kind; the message lists the known ones.
    pub fn check_kind(&self, kind: &str) -> Result<()> {
        ensure!(
            self.left_out.is_empty() || kind::canonical(kind).is_some(),
            "protocol `{}` leaves prompts of the kinds {} out of {}, and `{kind}` is no known kind; \
             use one of: {}",
            self.name,
            self.left_out.join(", "),
            Metric::photo_titles(Metric::ALL),
            kind::names()
        );
        Ok(())
    }

    /// Whether images of a kind of prompts are compared with photos.
    pub fn scores_identity(&self, kind: &str) -> bool {
        kind::canonical(kind).is_none_or(|kind| !self.left_out.contains(&kind))
    }

    /// Refuses numbers of images and photos that cannot be paired.
    ///
    /// # Errors
    /// The protocol pairs one photo per image, and the numbers differ.
    pub fn check_counts(&self, concept: &str, images: usize, photos: usize) -> Result<()> {
        ensure!(
            self.pairing == Pairing::All || photos == 1 || photos == images,
            "protocol `{}` pairs every image with one photo, but {concept} has {images} \
             images and {photos} photos; give as many, or a single photo, or use protocol \
             `dreambooth`",
            self.name
        );
        Ok(())
    }

    /// The text that an image of this prompt is compared with. `{}` stands for the concept, whose word in
    /// prompts is `word` and whose super-category is `class_word`.
    ///
    /// # Errors
    /// The rule needs a word that is not given.
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

    /// The score of an image with this similarity to its text.
    pub fn text_score(&self, similarity: f64) -> f64 {
        self.text_scale.of(similarity)
    }

    /// The score of the `index`-th image of a concept with these similarities to its photos.
    pub fn photo_score(&self, similarities: &[f64], index: usize) -> f64 {
        let mut scores = similarities.iter().map(|one| self.image_scale.of(*one));
        match self.pairing {
            Pairing::OneToOne => scores.nth(index % similarities.len().max(1)),
            Pairing::All => mean(scores),
        }
        .unwrap_or(f64::NAN)
    }

    /// Whether an image is scored. Its index among the images of its prompt is `number`.
    pub fn counts(&self, number: usize, blank: bool) -> bool {
        let among = self.images_per_prompt.is_none_or(|most| number < most);
        among && !(blank && self.blank == Blank::LeftOut)
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
            message.contains("`clip` is none of: dreambooth, core"),
            "{message}"
        );
        for name in Protocol::names() {
            assert!(message.contains(name), "{name}: {message}");
        }
    }

    #[test]
    fn the_masked_protocol_refuses_to_go_without_masks_and_others_with_them() {
        let check = |name: &str, given, faces| named(name).check_masks(given, faces);
        assert!(check("core", false, false).is_err());
        assert!(check("core", true, false).is_ok());
        assert!(check("dreambooth", false, false).is_ok());
        assert!(check("oft", true, false).is_err());
        assert!(check("dreambooth", true, true).is_ok());
        let message = check("dreambooth", false, true).unwrap_err().to_string();
        assert!(message.contains("`identity` needs masks"), "{message}");
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
        assert_eq!(named("dreambooth").text_score(-0.5), -0.5);
        assert_eq!(named("custom-diffusion").text_score(0.3), 0.75);
        assert_eq!(named("custom-diffusion").text_score(-0.3), 0.0);
        assert_eq!(named("dreambench-plus").text_score(0.25), 25.0);
        let similarities = [0.6, 0.8];
        let score = |name: &str, index: usize| named(name).photo_score(&similarities, index);
        assert!((score("custom-diffusion", 0) - 0.7).abs() < 1e-12);
        assert!((score("dreambench-plus", 1) - 80.0).abs() < 1e-12);
        assert!(
            (score("dreambench-plus", 2) - 60.0).abs() < 1e-12,
            "photos come round again"
        );
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
