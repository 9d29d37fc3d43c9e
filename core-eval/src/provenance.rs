//! `protocol.json`: the rules by which scores were computed, and the digests of encoders and photos.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use core_model::files::{read_to_string, sha256};
use core_model::folder::EncoderFolder;
use core_model::photos::PhotoFolder;
use core_train::data::landmarks::LANDMARKS;
use serde_json::{Map, Value, json};

use crate::masks::MASKS;
use crate::metrics::{EncoderFolders, FaceInput};
use crate::protocol::Protocol;

/// The text of `protocol.json`: the protocol, the prompt of base images where a metric reads them, and the
/// SHA-256 of every file of the networks, of the file that says where faces in images are where a metric
/// reads them aligned, and of every photo in the folders of concepts.
///
/// # Errors
/// Unreadable files of a network or photos.
pub fn protocol_json<'a>(
    protocol: &Protocol,
    folders: &EncoderFolders,
    base_prompt: Option<&str>,
    landmarks: Option<&Path>,
    concepts: impl IntoIterator<Item = (&'a str, &'a Path)>,
) -> Result<String> {
    let faces = folders.face_input()?;
    let is_aligned = faces == Some(FaceInput::Aligned);
    let (mut photos, mut photos_masks) = (Map::new(), Map::new());
    let mut photos_landmarks = Map::new();
    for (concept, folder) in concepts {
        let files = PhotoFolder::read(folder)?.files;
        photos.insert(concept.to_string(), Value::Object(digests(files)?));
        let masks = folder.join(MASKS);
        if protocol.masked && masks.is_dir() {
            let files = PhotoFolder::read(&masks)?.files;
            photos_masks.insert(concept.to_string(), Value::Object(digests(files)?));
        }
        if is_aligned {
            let digest = sha256(&folder.join(LANDMARKS))?;
            photos_landmarks.insert(concept.to_string(), json!(digest));
        }
    }
    photos.sort_keys();
    photos_masks.sort_keys();
    photos_landmarks.sort_keys();
    let mut text = Map::new();
    text.insert("protocol".into(), serde_json::to_value(protocol)?);
    for (kind, folder) in folders.encoders() {
        text.insert(kind.key.into(), network(folder)?);
    }
    text.insert("photos".into(), Value::Object(photos));
    if protocol.masked {
        text.insert("outside_the_mask".into(), json!("black"));
        text.insert("masks_beside_photos".into(), Value::Object(photos_masks));
        let generated = match folders.clipseg {
            Some(_) => "CLIPSeg, asked for the class word, probability above 0.5",
            None => "files",
        };
        text.insert("generated_masks".into(), json!(generated));
    }
    if let Some(input) = faces {
        text.insert("faces".into(), json!(faces_text(input)));
    }
    if let Some(file) = landmarks.filter(|_| is_aligned) {
        text.insert("landmarks".into(), json!({ "sha256": sha256(file)? }));
        let beside = Value::Object(photos_landmarks);
        text.insert("landmarks_beside_photos".into(), beside);
    }
    let masks = protocol.masked || faces == Some(FaceInput::WholeImage);
    if let Some(clipseg) = folders.clipseg.as_ref().filter(|_| masks) {
        text.insert("clipseg".into(), network(clipseg)?);
    }
    if let Some(prompt) = base_prompt {
        text.insert("base_prompt".into(), json!(prompt));
    }
    Ok(serde_json::to_string_pretty(&text)? + "\n")
}

/// How faces are found and given to the identity encoder.
fn faces_text(input: FaceInput) -> &'static str {
    match input {
        FaceInput::WholeImage => {
            "no alignment: whole images; a face is where the mask has a foreground"
        }
        FaceInput::Aligned => {
            "five landmarks from a file, a similarity to the template of insightface at 112 x 112 pixels, \
             bilinear, black outside; the sum of the features of the face and of its mirror image"
        }
    }
}

/// A network's preprocessing, and the SHA-256 of each of its files by name.
fn network(folder: &EncoderFolder) -> Result<Value> {
    let preprocessor = folder.path().join("preprocessor_config.json");
    let mut preprocessing = Value::Null;
    if preprocessor.exists() {
        preprocessing = serde_json::from_str(&read_to_string(&preprocessor)?)
            .with_context(|| preprocessor.display().to_string())?;
    }
    let mut digests = Map::new();
    for (name, digest) in folder.digests()? {
        let ending = Path::new(name).extension().unwrap_or_default();
        if ["json", "safetensors", "bin", "pth", "txt"]
            .iter()
            .any(|known| ending == *known)
        {
            digests.insert(name.clone(), json!(digest));
        }
    }
    Ok(json!({ "sha256": digests, "preprocessing": preprocessing }))
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
