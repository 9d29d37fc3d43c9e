//! Photos with the places of their faces, from the file beside them.

use std::path::Path;

use anyhow::Result;
use core_train::data::landmarks::{LANDMARKS, LandmarkFile};

use crate::gallery::ImageFile;

/// Photos of a folder with the landmarks in the file beside them.
///
/// # Errors
/// An absent or damaged file; a photo without a row, in which no face was found.
pub fn with_landmarks(photos: Vec<ImageFile>, folder: &Path) -> Result<Vec<ImageFile>> {
    let file = LandmarkFile::read(&folder.join(LANDMARKS))?;
    let photos = photos.into_iter().map(|photo| {
        Ok(ImageFile {
            landmarks: Some(file.of_photo(&photo.path)?),
            ..photo
        })
    });
    photos.collect()
}

/// The same, where neither the file nor a row of a photo has to be there.
///
/// # Errors
/// A damaged file.
pub fn with_known_landmarks(photos: Vec<ImageFile>, folder: &Path) -> Result<Vec<ImageFile>> {
    let path = folder.join(LANDMARKS);
    if !path.exists() {
        return Ok(photos);
    }
    let file = LandmarkFile::read(&path)?;
    let photos = photos.into_iter().map(|photo| ImageFile {
        landmarks: file.find(&photo.path),
        ..photo
    });
    Ok(photos.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn photos_that_are_learned_from_may_lack_landmarks_and_those_that_are_compared_with_may_not() {
        let folder = tempfile::tempdir().unwrap();
        let photos = || ["0.png", "1.png"].map(|name| ImageFile::from(folder.path().join(name)));
        let known = |photos: Vec<ImageFile>| {
            let photos = with_known_landmarks(photos, folder.path())
                .unwrap()
                .into_iter();
            photos
                .map(|photo| photo.landmarks.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(known(photos().into()), [false, false]);
        let text = "image,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n1.png,1,2,3,4,5,6,7,8,9,10\n";
        std::fs::write(folder.path().join(LANDMARKS), text).unwrap();
        assert_eq!(known(photos().into()), [false, true]);
        let message = with_landmarks(photos().into(), folder.path()).unwrap_err();
        assert!(
            message.to_string().contains("no row for the photo `0.png`"),
            "{message}"
        );
    }
}
