//! What the folders of photos say of their concepts: words, and the features of the photos.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use core_model::photos::PhotoFolder;
use core_train::config::{ConceptConfig, parse};
use core_train::data::rendered::say_other_photos;

use super::ScoreArgs;
use super::input::Input;
use super::items::Item;
use core_eval::gallery::{Gallery, ImageFeatures, ImageFile, Needs, masked_photos, photos};
use core_eval::landmarks::{with_known_landmarks, with_landmarks};
use core_eval::masks::no_class_word;
use core_eval::metrics::FaceInput;
use core_eval::protocol::{Pairing, Protocol};
use core_eval::scoring::PhotosBeside;

/// The concept.toml of each concept, where there is one beside its photos.
pub(super) struct Concepts(BTreeMap<String, Option<ConceptConfig>>);

impl Concepts {
    /// Reads those that are needed for prompts with `{}` and for the segmenter.
    ///
    /// # Errors
    /// A damaged concept.toml; an absent one where the segmenter needs it.
    pub(super) fn read(args: &ScoreArgs, input: &Input) -> Result<Self> {
        let mut concepts = BTreeMap::new();
        let masked = args.clipseg.is_some();
        let of_base = args.base_prompt.as_deref().unwrap_or_default();
        for item in &input.items {
            let needed = masked || item.prompt.contains("{}") || of_base.contains("{}");
            if !needed || concepts.contains_key(&item.concept) {
                continue;
            }
            let folder = input.photos(&item.concept);
            let file = folder.join("concept.toml");
            ensure!(!masked || file.exists(), no_class_word(&folder));
            let concept = file.exists().then(|| parse(&file)).transpose()?;
            concepts.insert(item.concept.clone(), concept);
        }
        Ok(Self(concepts))
    }

    fn of(&self, concept: &str) -> Option<&ConceptConfig> {
        self.0.get(concept).and_then(Option::as_ref)
    }

    pub(super) fn class_word(&self, concept: &str) -> Option<&str> {
        Some(self.of(concept)?.super_category.as_str())
    }

    /// The text that every image is compared with.
    pub(super) fn texts(&self, items: &[Item], protocol: &Protocol) -> Result<Vec<String>> {
        items
            .iter()
            .map(|item| {
                let word = self.of(&item.concept).map(ConceptConfig::placeholder_token);
                let class_word = self.class_word(&item.concept);
                protocol
                    .text(&item.prompt, word.as_deref(), class_word)
                    .with_context(|| format!("image `{}`", item.name))
            })
            .collect()
    }

    /// The prompt of the base model's image, in which `{}` stands for the class word.
    pub(super) fn base_text(&self, prompt: &str, concept: &str) -> Result<String> {
        if !prompt.contains("{}") {
            return Ok(prompt.to_string());
        }
        let word = self.class_word(concept).with_context(|| {
            format!(
                "--base-prompt `{prompt}` holds {{}}, which stands for the class word; give the photos \
                 of `{concept}` a concept.toml with `super_category`, or write the word itself"
            )
        })?;
        Ok(prompt.replace("{}", word))
    }
}

/// The photos of a concept in the order of its images: each goes with the photo of its name, to
/// the dot.
///
/// # Errors
/// An image without a photo of its name.
fn paired(
    items: &[Item],
    concept: &str,
    folder: &Path,
    photos: Vec<ImageFile>,
) -> Result<Vec<ImageFile>> {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_os_string();
    let by_name: BTreeMap<_, _> = photos
        .iter()
        .map(|photo| (stem(&photo.path), photo))
        .collect();
    let items = items.iter().filter(|item| item.concept == concept);
    let photo = |item: &Item| {
        let found = by_name.get(&stem(&item.path)).map(|photo| (*photo).clone());
        found.with_context(|| {
            format!(
                "image `{}` has no photo of its name in {}; the protocol pairs them by name, so \
                 give both the same names, or use protocol `dreambooth`",
                item.name,
                folder.display()
            )
        })
    };
    items.map(photo).collect()
}

/// The features of the photos of a concept.
#[derive(Debug, Default)]
pub(super) struct ConceptPhotos {
    /// Of those that images are compared with.
    pub(super) compared: Vec<ImageFeatures>,
    /// Of those beside them.
    pub(super) beside: PhotosBeside,
}

/// The features of the photos of every concept.
pub(super) fn photos_of_concepts(
    args: &ScoreArgs,
    input: &Input,
    gallery: &mut Gallery,
    protocol: &Protocol,
    concepts: &Concepts,
) -> Result<BTreeMap<String, ConceptPhotos>> {
    let mut images: BTreeMap<&str, usize> = BTreeMap::new();
    for item in &input.items {
        *images.entry(&item.concept).or_default() += 1;
    }
    let needs = Needs::of_photos(&gallery.metrics(), &[protocol]);
    let needs = needs.with_faces(gallery.face_input());
    let mut files = Vec::new();
    for (concept, count) in images {
        let folder = input.reference_photos(concept)?;
        PhotoFolder::read(&folder)?.say_skipped();
        say_other_photos(&folder);
        let given = args.references_masks.as_ref();
        let given = given.map(|masks| masks.join(concept));
        let word = concepts.class_word(concept);
        let read = |folder: &Path, given: Option<&Path>| match needs.masks() {
            true => masked_photos(folder, given, word),
            false => photos(folder),
        };
        let aligned = needs.finds_faces(FaceInput::Aligned);
        let mut photos = read(&folder, given.as_deref())?;
        if aligned {
            photos = with_landmarks(photos, &folder)?;
        }
        let learned = match input.photos(concept) {
            of_concept if of_concept == folder => Vec::new(),
            of_concept => {
                let photos = read(&of_concept, None)?;
                match aligned {
                    true => with_known_landmarks(photos, &of_concept)?,
                    false => photos,
                }
            }
        };
        protocol.check_counts(&folder.display().to_string(), count, photos.len())?;
        let photos = match protocol.pairing {
            Pairing::OneToOne if photos.len() > 1 => {
                paired(&input.items, concept, &folder, photos)?
            }
            _ => photos,
        };
        files.push((concept, photos, learned));
    }
    let mut all = BTreeMap::new();
    for (concept, photos, learned) in files {
        gallery.check_photos(&photos)?;
        if let Err(error) = gallery.check_photos(&learned) {
            // Images are not compared with these, and a side view may show no face.
            tracing::warn!("{error:#}");
        }
        let photos = ConceptPhotos {
            compared: gallery.features(&photos, &needs)?,
            beside: PhotosBeside {
                learned: gallery.features(&learned, &needs)?,
                decoded: Vec::new(),
            },
        };
        all.insert(concept.to_string(), photos);
    }
    Ok(all)
}
