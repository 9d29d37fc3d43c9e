//! A text file that grows by one line per step and is cut back to where a run is resumed.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use core_model::files::{read, write_atomically};

use crate::error::{Error, Result};

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    file: File,
}

impl LineFile {
    /// Opens the file at `path` and keeps its header and the `rows` lines after it. Makes the file
    /// when `rows` is 0. `header` is one line or empty.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written, [`Error::RunFolder`] when lines are missing.
    pub(super) fn open(path: &Path, header: &[u8], rows: usize) -> Result<Self> {
        let kept = if rows == 0 {
            write_atomically(path, header)?;
            header.len()
        } else {
            let lines = rows + usize::from(!header.is_empty());
            let text = read(path)?;
            let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            let end = ends.map(|(at, _)| at + 1).nth(lines - 1);
            end.ok_or_else(|| {
                let reason = "has fewer rows than the saved state has steps; remove the run \
                              folder and start again";
                Error::run_folder(path, reason)
            })?
        };
        let opened = OpenOptions::new().write(true).open(path);
        let mut file = opened.map_err(Error::io(path))?;
        file.set_len(kept as u64).map_err(Error::io(path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
        })
    }

    /// Appends a line, its end included.
    ///
    /// # Errors
    /// [`Error::File`] when the disk is full or gone.
    pub(super) fn append(&mut self, line: &[u8]) -> Result<()> {
        self.file.write_all(line).map_err(Error::io(&self.path))?;
        self.file.flush().map_err(Error::io(&self.path))
    }

    /// Waits until all lines are on the disk.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path))
    }
}
