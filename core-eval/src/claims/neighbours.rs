//! The other processes that work in the folder, and whether this one may work beside them.

use anyhow::{Result, bail};

use super::{Claims, Owner, PROCESS};

impl Claims {
    /// Whether the living processes beside this one generate only images that it knows of.
    ///
    /// # Errors
    /// An unreadable folder.
    pub fn know_images_of_others(&self) -> Result<bool> {
        let own = &self.entry.images;
        let others = self.others()?;
        let mut folders = others.iter().flat_map(|other| other.images.keys());
        Ok(folders.all(|folder| own.contains_key(folder)))
    }

    /// Refuses to work beside a process that would give other results, and warns of one that may.
    pub(super) fn check_others(&self) -> Result<()> {
        for other in self.others()? {
            self.check_version(&other)?;
            self.check_images(&other)?;
            if let Some(warning) = self.entry.differs_in_revision(&other) {
                tracing::warn!("{warning}");
            }
        }
        Ok(())
    }

    /// The entries of the other living processes; those of dead ones are removed.
    fn others(&self) -> Result<Vec<Owner>> {
        let mut others = Vec::new();
        for path in self.files()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(PROCESS) || path == self.entry_path() {
                continue;
            }
            let Some(found) = self.read(&path)? else {
                continue;
            };
            if self.is_dead(&found) {
                let _ = std::fs::remove_file(&path);
            } else {
                others.extend(found.owner);
            }
        }
        Ok(others)
    }

    pub(super) fn check_version(&self, other: &Owner) -> Result<()> {
        if other.program == self.entry.program {
            return Ok(());
        }
        bail!(
            "{}: {} works here with {}, and this is {}; use one version, or name another folder \
             with --results",
            self.folder.parent().unwrap_or(&self.folder).display(),
            other.describe(),
            other.program,
            self.entry.program
        )
    }

    fn check_images(&self, other: &Owner) -> Result<()> {
        for (folder, how) in &self.entry.images {
            if other.images.get(folder).is_some_and(|theirs| theirs != how) {
                bail!(
                    "{folder}: {} generates other images here, from another version of the \
                     experiment's file; wait for it, or name another folder with --results",
                    other.describe()
                );
            }
        }
        Ok(())
    }
}
