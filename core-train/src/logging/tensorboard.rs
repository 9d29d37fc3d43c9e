//! `tensorboard/`: an event file that TensorBoard opens, with scalars and validation images.
//!
//! The format is TensorFlow's: records of length, checksum, event, checksum (tensorflow/core/lib/io/record_writer.h),
//! each event a protocol buffer (tensorflow/core/util/event.proto, framework/summary.proto). Only the
//! fields that are written stand here.

use std::fs::{File, OpenOptions};
use std::io::{Cursor, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use core_model::files::{read, write_atomically};
use image::{ImageFormat, RgbImage};

use super::{Logged, Logger};
use crate::error::{Error, Result};

/// Its folder in the run folder, which `tensorboard --logdir` finds.
pub(super) const FILE: &str = "tensorboard";

/// Its name; TensorBoard looks for `tfevents`.
const EVENTS: &str = "events.out.tfevents.0.core-train";

/// Bytes before and after the event of a record: its length with a checksum, and a checksum.
const HEAD: usize = 12;
const TAIL: usize = 4;

/// The event file.
#[derive(Debug)]
pub(super) struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Opens the file of a run folder and keeps the events of the first `rows` steps of all stages.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read or written.
    pub(super) fn open(folder: &Path, rows: usize) -> Result<Self> {
        let folder = folder.join(FILE);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let path = folder.join(EVENTS);
        let kept = if rows == 0 {
            let version = record(&event(0, |event| event.bytes(3, b"brain.Event:2")));
            write_atomically(&path, &version)?;
            version.len()
        } else {
            length_up_to(&read(&path)?, rows as u64)
        };
        let opened = OpenOptions::new().write(true).open(&path);
        let mut file = opened.map_err(Error::io(&path))?;
        file.set_len(kept as u64).map_err(Error::io(&path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(&path))?;
        Ok(Self { path, file })
    }
}

impl Logger for TensorBoard {
    fn log(&mut self, logged: &Logged<'_>) -> Result<()> {
        let row = logged.row;
        let mut values = Message::default();
        for (name, text) in row.numbers() {
            let group = match row.scores.iter().any(|(column, _)| *column == name) {
                true => "validation",
                false => "train",
            };
            // A number that `Row` has just written as text.
            let number = text.parse::<f32>().unwrap_or(f32::NAN);
            values.message(1, |value| {
                value.bytes(1, format!("{group}/{name}").as_bytes());
                value.float(2, number);
            });
        }
        for (prompt, image) in logged.images {
            let png = png(image).map_err(|reason| Error::run_folder(&self.path, reason))?;
            values.message(1, |value| {
                value.bytes(1, format!("validation/{prompt}").as_bytes());
                value.message(4, |field| {
                    field.number(1, u64::from(image.height()));
                    field.number(2, u64::from(image.width()));
                    field.number(3, 3);
                    field.bytes(4, &png);
                });
            });
        }
        let step = logged.total_step as u64;
        let record = record(&event(step, |event| event.bytes(5, &values.0)));
        self.file
            .write_all(&record)
            .map_err(Error::io(&self.path))?;
        self.file.flush().map_err(Error::io(&self.path))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path))
    }
}

fn png(image: &RgbImage) -> Result<Vec<u8>, String> {
    let mut bytes = Cursor::new(Vec::new());
    let written = image.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|error| error.to_string())?;
    Ok(bytes.into_inner())
}

/// An event of now.
fn event(step: u64, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut event = Message::default();
    event.double(1, now.map_or(0.0, |now| now.as_secs_f64()));
    event.number(2, step);
    fill(&mut event);
    event.0
}

/// A record of the event file.
fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_checksum(&length));
    record.extend(event);
    record.extend(masked_checksum(event));
    record
}

/// CRC-32C, rotated and shifted so that checksums of checksums stay useful.
fn masked_checksum(bytes: &[u8]) -> [u8; 4] {
    let checksum = crc32c::crc32c(bytes);
    let masked = checksum.rotate_right(15).wrapping_add(0xa282_ead8);
    masked.to_le_bytes()
}

/// How many bytes of an event file hold whole records of steps up to `last`. Events stand in the
/// order of their steps.
fn length_up_to(file: &[u8], last: u64) -> usize {
    let mut at = 0;
    while let Some(event) = event_at(file, at) {
        if step_of(event).is_none_or(|step| step > last) {
            break;
        }
        at += HEAD + event.len() + TAIL;
    }
    at
}

/// The event of the record that begins at a byte, where the record is whole.
fn event_at(file: &[u8], at: usize) -> Option<&[u8]> {
    let length = file.get(at..at + 8)?.try_into().ok()?;
    let length = usize::try_from(u64::from_le_bytes(length)).ok()?;
    let begin = at + HEAD;
    let end = begin.checked_add(length)?;
    let event = file.get(begin..end)?;
    let checksum = file.get(end..end.checked_add(TAIL)?)?;
    (masked_checksum(event) == checksum).then_some(event)
}

/// The step of an event: its second field, after nine bytes of time. It is left out for step 0.
fn step_of(event: &[u8]) -> Option<u64> {
    let rest = event.get(9..)?;
    if rest.first() != Some(&key(2, VARINT)) {
        return Some(0);
    }
    let mut step = 0;
    for (index, byte) in rest[1..].iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(step);
        }
    }
    None
}

/// The wire types of protocol buffers.
const VARINT: u8 = 0;
const DOUBLE: u8 = 1;
const BYTES: u8 = 2;
const FLOAT: u8 = 5;

/// The first byte of a field; all our field numbers are below 16.
const fn key(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

/// A protocol buffer while it is written. Numbers that are 0 are left out, as the format demands of
/// its canonical form.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(&mut self, field: u8, number: u64) {
        if number != 0 {
            self.0.push(key(field, VARINT));
            self.varint(number);
        }
    }

    fn double(&mut self, field: u8, number: f64) {
        self.0.push(key(field, DOUBLE));
        self.0.extend(number.to_le_bytes());
    }

    /// Written even when it is 0, since it is one of several kinds of values.
    fn float(&mut self, field: u8, number: f32) {
        self.0.push(key(field, FLOAT));
        self.0.extend(number.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.0.push(key(field, BYTES));
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u8, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{logged, row};
    use super::*;

    fn steps(file: &[u8]) -> Vec<u64> {
        let (mut at, mut steps) = (0, Vec::new());
        while let Some(event) = event_at(file, at) {
            steps.push(step_of(event).unwrap());
            at += HEAD + event.len() + TAIL;
        }
        assert_eq!(at, file.len());
        steps
    }

    #[test]
    fn checksums_are_those_of_the_format() {
        // CRC-32C of "123456789" is e3069283 (RFC 3720, appendix B.4 defines the polynomial).
        let masked = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_checksum(b"123456789"), masked.to_le_bytes());
    }

    #[test]
    fn numbers_take_seven_bits_per_byte() {
        let mut message = Message::default();
        message.number(2, 300);
        assert_eq!(message.0, [0x10, 0xac, 0x02]);
    }

    #[test]
    fn reopening_keeps_whole_events_up_to_the_saved_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE).join(EVENTS);
        let images = vec![("a {}".to_string(), RgbImage::new(3, 2))];
        let mut board = TensorBoard::open(folder.path(), 0).unwrap();
        for step in [1, 2, 200, 300] {
            board.log(&logged(&row(step), &images)).unwrap();
        }
        assert_eq!(steps(&read(&path).unwrap()), [0, 1, 2, 200, 300]);
        // A kill may leave half a record.
        board.file.write_all(&[7; 20]).unwrap();
        let mut board = TensorBoard::open(folder.path(), 200).unwrap();
        board.log(&logged(&row(201), &[])).unwrap();
        assert_eq!(steps(&read(&path).unwrap()), [0, 1, 2, 200, 201]);
    }
}
