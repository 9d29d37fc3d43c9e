//! `[evaluation]` of an experiment: who judges, and by which protocols.

use std::path::PathBuf;

use anyhow::{Result, bail};
use core_model::source::EncoderSource;
use serde::Deserialize;

use crate::metrics::JudgeFolders;
use crate::protocol::Protocol;

/// `[evaluation]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Folder of the CLIP model.
    pub clip: PathBuf,
    /// Folder of the DINO model.
    pub dino: PathBuf,
    /// How scores are computed.
    pub protocol: OneOrMore,
    /// Folder of the CLIPSeg model that makes masks, which masked protocols need.
    pub clipseg: Option<PathBuf>,
}

impl Evaluation {
    /// The folders of the judges.
    pub fn judges(&self) -> JudgeFolders<'_> {
        JudgeFolders {
            clip: &self.clip,
            dino: &self.dino,
            clipseg: self.clipseg.as_deref(),
        }
    }

    /// Puts folders in place of repositories of the hub.
    pub(super) fn locate(&mut self) -> Result<()> {
        let encoders = [&mut self.clip, &mut self.dino];
        for encoder in encoders.into_iter().chain(&mut self.clipseg) {
            let folder = EncoderSource::from(encoder.as_path()).locate()?;
            *encoder = folder.path().to_path_buf();
        }
        Ok(())
    }

    /// Refuses masks that no protocol uses, and masked protocols without masks.
    pub(super) fn check_masks(&self) -> Result<()> {
        let protocols = self.protocols()?;
        let given = self.clipseg.is_some();
        match protocols.iter().find(|protocol| protocol.masked) {
            Some(masked) => masked.check_masks(given),
            None => protocols.iter().try_for_each(|p| p.check_masks(given)),
        }
    }

    /// The protocols, the first of which gives the files without suffix.
    ///
    /// # Errors
    /// Unknown names, a name twice, none at all.
    pub fn protocols(&self) -> Result<Vec<&'static Protocol>> {
        let names = self.protocol.names();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                bail!("`evaluation.protocol` names `{name}` twice");
            }
        }
        if names.is_empty() {
            bail!("`evaluation.protocol` names no protocol; write \"dreambooth\"");
        }
        names.into_iter().map(Protocol::named).collect()
    }
}

/// A name or a list of names.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several; the first one's files keep the plain names.
    More(Vec<String>),
}

impl OneOrMore {
    /// The names, in order.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::One(name) => vec![name],
            Self::More(names) => names.iter().map(String::as_str).collect(),
        }
    }
}
