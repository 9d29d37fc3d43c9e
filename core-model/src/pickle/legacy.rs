//! What `torch.save` wrote before version 1.6: five pickles (a magic number, the version, facts of
//! the machine, the object, the keys of its storages), then for each key the number of its values
//! in eight bytes and the values.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::machine::unpickle_first;
use super::values::{Storage, Value, Values};
use super::{MOST_BYTES, Storages};
use crate::error::{Error, Result};

/// The pickle of the magic number, 0x1950a86a20f9469cfc6c, which follows its protocol.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// First byte and number of values of each storage.
struct Row {
    places: BTreeMap<String, (u64, u64)>,
}

/// Whether a file begins with the magic number.
///
/// # Errors
/// [`Error::Io`]
pub(super) fn is_one(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    let most = MAGIC.len() as u64 + 2;
    file.take(most)
        .read_to_end(&mut start)
        .map_err(Error::io(path))?;
    Ok(start.get(2..) == Some(MAGIC))
}

/// Reads the object and where its storages are.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged file.
pub(super) fn open(path: &Path) -> Result<(Values, Box<dyn Storages>)> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut bytes = Vec::new();
    Read::by_ref(&mut file)
        .take(MOST_BYTES)
        .read_to_end(&mut bytes)
        .map_err(Error::io(path))?;
    let refuse = |reason: String| Error::format(path, reason);
    let mut rest = &bytes[..];
    let mut next = || -> Result<Values, String> {
        let (values, behind) = unpickle_first(rest)?;
        rest = behind;
        Ok(values)
    };
    let read = (|| {
        let (_magic, _version, _machine) = (next()?, next()?, next()?);
        Ok((next()?, next()?))
    })();
    let (object, keys): (Values, Values) = read.map_err(refuse)?;
    let start = (bytes.len() - rest.len()) as u64;
    let row = Row::read(path, &object, &keys, start, length).map_err(refuse)?;
    Ok((object, Box::new(row)))
}

impl Row {
    /// Goes from storage to storage; how wide the values of each are, the object's storages say.
    fn read(
        path: &Path,
        object: &Values,
        keys: &Values,
        start: u64,
        length: u64,
    ) -> Result<Self, String> {
        use std::io::{Seek, SeekFrom};
        let Value::List(listed) = keys.get(keys.root) else {
            return Err("the list of its storages is damaged".into());
        };
        let widths = object.widths();
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let mut places = BTreeMap::new();
        let mut at = start;
        for key in listed {
            let Value::Text(key) = keys.get(*key) else {
                return Err("the list of its storages is damaged".into());
            };
            let mut count = [0; 8];
            let read = file.seek(SeekFrom::Start(at));
            let read = read.and_then(|_| file.read_exact(&mut count));
            read.map_err(|_| format!("storage `{key}` is cut off; fetch the file again"))?;
            let count = u64::from_le_bytes(count);
            let width = widths.get(key.as_str()).copied();
            let width = width.ok_or_else(|| format!("storage `{key}` is of an unknown kind"))?;
            let end = count.checked_mul(width as u64);
            let end = end.and_then(|bytes| bytes.checked_add(at + 8));
            let end = end.filter(|end| *end <= length);
            let end = end.ok_or_else(|| {
                format!("storage `{key}` claims {count} values; the file is cut off or damaged")
            })?;
            places.insert(key.clone(), (at + 8, end - at - 8));
            at = end;
        }
        Ok(Self { places })
    }
}

impl Storages for Row {
    fn place(&mut self, storage: &Storage) -> Result<(usize, usize), String> {
        let place = self.places.get(&storage.key);
        let (start, bytes) =
            place.ok_or_else(|| format!("there is no storage `{}`", storage.key))?;
        let fits = |number: u64| usize::try_from(number).map_err(|error| error.to_string());
        Ok((fits(*start)?, fits(*bytes)?))
    }
}
