//! Files that say where the faces of images are, which detectors of any kind write.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_model::Error as ModelError;
use core_model::alignment::{Landmarks, coincide};
use core_model::files::read_to_string;

use crate::error::Result;

/// The file beside photos, and in a folder of results.
pub const LANDMARKS: &str = "landmarks.csv";

/// What such a file holds and who writes it.
pub const HOW: &str = "The encoder reads aligned faces, and nothing here finds faces. Write the file with a \
     detector: the columns image,x1,y1,.. with one row for each image that shows a face, and the places of \
     5 points (eyes, nose, corners of the mouth, as insightface and MTCNN give them) or 68 (as \
     face-alignment and dlib give them) in pixels";

/// The landmarks of images by name.
#[derive(Debug, Default)]
pub struct LandmarkFile {
    path: PathBuf,
    rows: BTreeMap<String, Landmarks>,
}

impl LandmarkFile {
    /// Reads a file: the columns `image`, then x and y of 5 or 68 points.
    ///
    /// # Errors
    /// An absent file, other columns, a row that is not of numbers or whose points are one, two rows of one
    /// image, which shows two people.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |reason: String| ModelError::format(path, reason);
        if !path.is_file() {
            return Err(refuse(format!("is missing. {HOW}")).into());
        }
        let text = read_to_string(path)?;
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let header = reader
            .headers()
            .map_err(|error| refuse(error.to_string()))?;
        let (first, points) = (
            header.get(0).unwrap_or_default(),
            header.len().saturating_sub(1),
        );
        if first != "image" || ![10, 136].contains(&points) {
            let reason = format!(
                "the first column is `{first}` and {points} follow; expected `image`, then x and y of 5 or \
                 68 points, 10 or 136 columns"
            );
            return Err(refuse(reason).into());
        }
        let mut rows = BTreeMap::new();
        for (index, row) in reader.records().enumerate() {
            // The header is line 1.
            let refuse = |reason: String| refuse(format!("line {}: {reason}", index + 2));
            let row = row.map_err(|error| refuse(error.to_string()))?;
            let name = image_name(row.get(0).unwrap_or_default());
            let landmarks = landmarks(row.iter().skip(1)).map_err(refuse)?;
            if rows.insert(name.clone(), landmarks).is_some() {
                let reason = format!(
                    "a second face in `{name}`, and it is not known which of the two people is meant; keep \
                     one row for each image, or crop it to one person"
                );
                return Err(refuse(reason).into());
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            rows,
        })
    }

    /// The landmarks of an image; none where no face was found in it.
    pub fn of(&self, name: &str) -> Option<Landmarks> {
        self.rows.get(&image_name(name)).copied()
    }

    /// The landmarks of a photo in the folder of the file; none where no face was found in it.
    pub fn find(&self, photo: &Path) -> Option<Landmarks> {
        self.of(&file_name(photo))
    }

    /// The same of a photo that has to show a face.
    ///
    /// # Errors
    /// A photo without a row.
    pub fn of_photo(&self, photo: &Path) -> Result<Landmarks> {
        let missing = || {
            let name = file_name(photo);
            let reason = format!(
                "has no row for the photo `{name}`, so no face was found in it; add one, or use a photo that \
                 shows a face"
            );
            ModelError::format(&self.path, reason)
        };
        Ok(self.find(photo).ok_or_else(missing)?)
    }

    /// Refuses a file whose rows are about none of these images: their names are spelled otherwise.
    ///
    /// # Errors
    /// No row names an image.
    pub fn check_names<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Result<()> {
        let Some(first) = names.next() else {
            return Ok(());
        };
        let named = self.of(first).is_some() || names.any(|name| self.of(name).is_some());
        let other = self.rows.keys().next();
        if let (false, Some(other)) = (named, other) {
            let reason = format!(
                "none of the {} rows is about an image here; it names `{other}`, and an image here is called \
                 `{first}`",
                self.rows.len()
            );
            return Err(ModelError::format(&self.path, reason).into());
        }
        Ok(())
    }
}

fn file_name(photo: &Path) -> Cow<'_, str> {
    photo.file_name().unwrap_or_default().to_string_lossy()
}

/// The name of an image as rows are found by it.
fn image_name(written: &str) -> String {
    let name = written.replace('\\', "/");
    name.trim_start_matches("./").to_string()
}

/// The five points of a row with 5 or 68, or what is wrong with it.
fn landmarks<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Landmarks, String> {
    let numbers = fields.map(|field| {
        let number: Option<f64> = field.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| format!("`{field}` is no place in pixels"))
    });
    let numbers = numbers.collect::<Result<Vec<f64>, String>>()?;
    let (points, _) = numbers.as_chunks::<2>();
    let landmarks = match points {
        [a, b, c, d, e] => [*a, *b, *c, *d, *e],
        points if points.len() == 68 => {
            let eye = |from: usize| {
                let points = &points[from..from + 6];
                [0, 1].map(|axis| points.iter().map(|point| point[axis]).sum::<f64>() / 6.0)
            };
            [eye(36), eye(42), points[30], points[48], points[54]]
        }
        points => return Err(format!("{} points; expected 5 or 68", points.len())),
    };
    match coincide(&landmarks) {
        true => {
            Err("the points are all in one place, so they do not say where a face is".to_string())
        }
        false => Ok(landmarks),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LandmarkFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LANDMARKS);
        std::fs::write(&path, text).unwrap();
        LandmarkFile::read(&path)
    }

    const HEADER: &str = "image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n";

    #[test]
    fn five_points_are_taken_as_they_are_and_of_68_eyes_are_means() {
        let file = read(&format!("{HEADER}./a/0.png,1,2,3,4,5,6,7,8,9,10.5\n")).unwrap();
        let expected = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.5]];
        assert_eq!(file.of("a/0.png"), Some(expected));
        assert_eq!(file.of("a\\0.png"), Some(expected));
        assert_eq!(file.of("b/0.png"), None);
        let columns: Vec<String> = (0..136).map(|n| format!("c{n}")).collect();
        let values: Vec<String> = (0..68).map(|n| format!("{n},{}", 2 * n)).collect();
        let file = read(&format!(
            "image,{}\n0.png,{}\n",
            columns.join(","),
            values.join(",")
        ));
        // Points 36 to 41 and 42 to 47 have the means 38.5 and 44.5.
        let expected = [38.5, 44.5, 30.0, 48.0, 54.0].map(|x| [x, 2.0 * x]);
        assert_eq!(file.unwrap().of("0.png"), Some(expected));
    }

    #[test]
    fn a_row_that_does_not_say_where_one_face_is_is_refused_by_line() {
        let row = "0.png,1,2,3,4,5,6,7,8,9,10";
        for (text, parts) in [
            ("image,x\n0.png,1\n".to_string(), ["1 follow", "10 or 136"]),
            ("x,y\n".to_string(), ["`x`", "expected `image`"]),
            (
                format!("{HEADER}{row}\n{row}\n"),
                ["line 3", "second face in `0.png`"],
            ),
            (
                format!("{HEADER}0.png,1,2,3,4,5,6,7,8,9,x\n"),
                ["line 2", "`x` is no place"],
            ),
            (
                format!("{HEADER}0.png,1,2,3,4,5,6,7,8,9,NaN\n"),
                ["line 2", "`NaN`"],
            ),
            (format!("{HEADER}0.png,1,2,3\n"), ["line 2", "fields"]),
            (
                format!("{HEADER}0.png,1,2,1,2,1,2,1,2,1,2\n"),
                ["line 2", "all in one place"],
            ),
        ] {
            let message = format!("{:#}", read(&text).unwrap_err());
            for part in parts {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
    }

    #[test]
    fn an_absent_file_is_told_with_the_tools_that_write_one() {
        let message = LandmarkFile::read(Path::new("nowhere/landmarks.csv")).unwrap_err();
        let message = format!("{message:#}");
        for part in ["nowhere", "insightface", "face-alignment", "dlib", "MTCNN"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn rows_that_are_about_other_images_are_refused_with_both_names() {
        let file = read(&format!("{HEADER}pictures/0.png,1,2,3,4,5,6,7,8,9,10\n")).unwrap();
        assert!(
            file.check_names(["1.png", "pictures/0.png"].into_iter())
                .is_ok()
        );
        let message = file
            .check_names(["0.png"].into_iter())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`pictures/0.png`") && message.contains("`0.png`"),
            "{message}"
        );
        assert!(
            read(HEADER)
                .unwrap()
                .check_names(["0.png"].into_iter())
                .is_ok()
        );
    }
}
