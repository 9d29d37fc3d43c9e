//! The zip archive that `torch.save` writes since version 1.6: `data.pkl` and, for each storage,
//! `data/KEY`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::machine::unpickle_first;
use super::values::{Storage, Values};
use super::{MOST_BYTES, Storages};
use crate::error::{Error, Result};

/// The storages of an archive.
struct Archive {
    zip: ZipArchive<File>,
    /// Before the names of all entries.
    folder: String,
    /// The size of the file, in bytes.
    length: u64,
}

/// Reads the pickle of an archive.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for another archive, or a damaged one.
pub(super) fn open(path: &Path) -> Result<(Values, Box<dyn Storages>)> {
    let refuse = |reason: &str| Error::format(path, reason);
    let file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut zip = ZipArchive::new(file).map_err(|error| {
        let reason = format!(
            "no archive as torch.save writes since version 1.6 ({error}), nor a file of an earlier \
             version; open it with a torch that you trust it with and save it again, best as \
             safetensors"
        );
        refuse(&reason)
    })?;
    let names: Vec<String> = zip
        .file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .collect();
    let pickle = names.iter().find(|name| {
        let folder = name.strip_suffix("data.pkl");
        folder.is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
    });
    let Some(pickle) = pickle else {
        return Err(refuse(
            "an archive without `data.pkl`, so torch.save did not write it; expected tensors as \
             .safetensors, .pt, .bin or .ckpt",
        ));
    };
    let folder = pickle.trim_end_matches("data.pkl").to_string();
    if names.contains(&format!("{folder}byteorder")) {
        let order = read_entry(&mut zip, path, &format!("{folder}byteorder"), length)?;
        if order != b"little" {
            return Err(refuse("its numbers are not little-endian; save it again"));
        }
    }
    let bytes = read_entry(&mut zip, path, pickle, length.min(MOST_BYTES))?;
    let (values, _) = unpickle_first(&bytes).map_err(|reason| refuse(&reason))?;
    let archive = Archive {
        zip,
        folder,
        length,
    };
    Ok((values, Box::new(archive)))
}

impl Storages for Archive {
    fn place(&mut self, storage: &Storage) -> Result<(usize, usize), String> {
        let entry = format!("{}data/{}", self.folder, storage.key);
        let found = self
            .zip
            .by_name(&entry)
            .map_err(|error| format!("`{entry}` in the archive: {error}"))?;
        if found.compression() != CompressionMethod::Stored {
            return Err(format!("`{entry}` in the archive is compressed"));
        }
        let start = found
            .data_start()
            .and_then(|start| usize::try_from(start).ok())
            .ok_or_else(|| format!("`{entry}` in the archive has no place"))?;
        let stored = found.size().min(self.length.saturating_sub(start as u64));
        Ok((start, usize::try_from(stored).unwrap_or(usize::MAX)))
    }
}

/// The bytes of an entry, which torch stores uncompressed, so that they are no more than the file.
fn read_entry(zip: &mut ZipArchive<File>, path: &Path, name: &str, most: u64) -> Result<Vec<u8>> {
    let damaged = |error: &dyn std::fmt::Display| {
        Error::format(path, format!("`{name}` in the archive: {error}"))
    };
    let entry = zip.by_name(name).map_err(|error| damaged(&error))?;
    if entry.size() > most {
        return Err(damaged(&format!(
            "{} bytes, at most {most} are read",
            entry.size()
        )));
    }
    let mut bytes = Vec::new();
    entry
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| damaged(&error))?;
    Ok(bytes)
}
