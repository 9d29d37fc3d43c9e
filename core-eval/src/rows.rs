//! CSV files that people write.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use core_model::files::read_to_string;
use csv::{ReaderBuilder, Trim};
use serde::de::DeserializeOwned;

/// Reads a CSV file whose first line names its columns; spaces around commas do not count.
///
/// # Errors
/// An unreadable file, one of other columns or separators, naming what was found and `columns`,
/// which are expected.
pub fn read_rows<T: DeserializeOwned>(path: &Path, columns: &str) -> Result<Vec<T>> {
    let text = read_to_string(path)?;
    let expected = || {
        format!(
            "{}: expected a CSV with the columns {columns}",
            path.display()
        )
    };
    let header = text.lines().next().unwrap_or_default();
    for (separator, name) in [(';', "semicolons"), ('\t', "tabs")] {
        ensure!(
            header.contains(',') || !header.contains(separator),
            "{}; its first line `{header}` is separated by {name}, so save it with commas",
            expected()
        );
    }
    let mut reader = ReaderBuilder::new()
        .trim(Trim::All)
        .from_reader(text.as_bytes());
    let found = reader.headers().with_context(expected)?.clone();
    for column in columns.split(',') {
        ensure!(
            found.iter().any(|name| name == column),
            "{}; there is no column `{column}`, the first line has {}",
            expected(),
            found.iter().collect::<Vec<_>>().join(",")
        );
    }
    let rows = reader.deserialize();
    rows.map(|row| row.with_context(expected)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Row {
        image: String,
        prompt: String,
    }

    fn rows(content: &[u8]) -> Result<Vec<Row>> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), content)?;
        read_rows(file.path(), "image,prompt")
    }

    #[test]
    fn byte_order_marks_line_ends_and_spaces_do_not_count() {
        let expected = vec![Row {
            image: "0.png".into(),
            prompt: "a dog, small".into(),
        }];
        for content in [
            &b"image,prompt\n0.png,\"a dog, small\"\n"[..],
            b"\xef\xbb\xbfimage,prompt\r\n0.png,\"a dog, small\"\r\n",
            b"prompt , image\n\"a dog, small\" , 0.png",
        ] {
            assert_eq!(rows(content).unwrap(), expected);
        }
    }

    #[test]
    fn other_separators_and_columns_are_named() {
        for (content, part) in [
            (&b"image;prompt\n0.png;a dog\n"[..], "semicolons"),
            (b"image\tprompt\n0.png\ta dog\n", "tabs"),
            (b"file,text\n0.png,a dog\n", "the first line has file,text"),
            (b"image,prompt\n0.png\n", "columns image,prompt"),
            (b"\xff\xfei\0m\0", "UTF-16"),
        ] {
            let message = format!("{:#}", rows(content).unwrap_err());
            assert!(message.contains(part), "{message}");
        }
    }
}
