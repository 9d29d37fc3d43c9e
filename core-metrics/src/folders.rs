//! Where the networks of an evaluation are: a folder per encoder, and one for masks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use core_model::folder::EncoderFolder;
use core_model::source::EncoderSource;

use crate::{EncoderKind, FaceInput, Metric};

/// The folders of the image encoders by key, and that of the network that makes masks.
#[derive(Debug, Clone, Default)]
pub struct EncoderFolders {
    by_key: BTreeMap<&'static str, EncoderFolder>,
    /// Of the CLIPSeg model, where one makes masks.
    pub clipseg: Option<EncoderFolder>,
}

impl EncoderFolders {
    /// Names the folder of an encoder.
    pub fn set(&mut self, kind: &'static EncoderKind, folder: PathBuf) {
        self.by_key.insert(kind.key, EncoderFolder::new(folder));
    }

    /// The folder of an encoder, where it is named.
    pub fn get(&self, kind: &EncoderKind) -> Option<&EncoderFolder> {
        self.by_key.get(kind.key)
    }

    /// The encoders whose folders are named, in the order of the metrics that read them.
    pub fn encoders(&self) -> impl Iterator<Item = (&'static EncoderKind, &EncoderFolder)> {
        let kinds = EncoderKind::all().into_iter();
        kinds.filter_map(|kind| Some((kind, self.get(kind)?)))
    }

    /// The metrics whose encoders' folders are named, without those that need images of the base
    /// model.
    pub fn metrics(&self) -> Vec<Metric> {
        self.metrics_where(|metric| !metric.reads_base_image())
    }

    /// The metrics for which `chosen` says yes and whose encoders' folders are named.
    pub fn metrics_where(&self, chosen: impl Fn(Metric) -> bool) -> Vec<Metric> {
        let metrics = Metric::ALL.iter().copied();
        let named = |metric: Metric| self.get(metric.definition().encoder()).is_some();
        metrics
            .filter(|metric| named(*metric) && chosen(*metric))
            .collect()
    }

    /// Whether a metric runs that needs to know which images show a face.
    pub fn read_faces(&self) -> bool {
        self.encoders().any(|(kind, _)| kind.reads_faces())
    }

    /// How the encoder that reads faces is given them; none where there is no such encoder.
    ///
    /// # Errors
    /// A folder without a configuration.
    pub fn face_input(&self) -> Result<Option<FaceInput>> {
        let mut inputs = self.encoders().filter_map(|(kind, folder)| {
            let input = kind.face_input?;
            Some(input(folder.path()))
        });
        inputs.next().transpose()
    }

    /// All folders.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let encoders = self.encoders().map(|(_, folder)| folder);
        encoders.chain(&self.clipseg).map(EncoderFolder::path)
    }

    /// Puts another folder in the place of each.
    ///
    /// # Errors
    /// The first that `change` reports.
    pub fn replace(&mut self, change: impl Fn(&Path) -> Result<EncoderFolder>) -> Result<()> {
        for folder in self.by_key.values_mut().chain(&mut self.clipseg) {
            *folder = change(folder.path())?;
        }
        Ok(())
    }

    /// Fetches those that are repositories of the hub.
    ///
    /// # Errors
    /// A folder that is absent; what the hub reports.
    pub fn locate(&mut self) -> Result<()> {
        self.replace(|folder| Ok(EncoderSource::from(folder).locate()?))
    }
}
