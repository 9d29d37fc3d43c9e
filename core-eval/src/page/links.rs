//! Links from the page to files.

use std::path::{Component, Path, PathBuf};

/// The address of a file for a page in `folder`: relative, with `/`, and everything but letters, digits
/// and `-._~` encoded.
pub(super) fn link(folder: &Path, file: &Path) -> String {
    let (folder, file) = (absolute(folder), absolute(file));
    let ours = folder.components().zip(file.components());
    let common = ours.take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).map(|_| "..".to_string());
    let down = file.components().skip(common).map(|part| {
        let text = part.as_os_str().to_string_lossy();
        text.bytes().map(encoded).collect::<String>()
    });
    up.chain(down).collect::<Vec<_>>().join("/")
}

fn encoded(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

/// The path from the root, without `.` and `..`; the folder must not exist.
fn absolute(path: &Path) -> PathBuf {
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name())
        && let Ok(folder) = folder.canonicalize()
    {
        return folder.join(name);
    }
    let path = path.canonicalize().or_else(|_| std::path::absolute(path));
    let mut tidy = PathBuf::new();
    for part in path.unwrap_or_default().components() {
        match part {
            Component::ParentDir => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::link;
    use std::path::Path;

    #[test]
    fn links_are_relative_and_names_are_encoded() {
        for (folder, file, expected) in [
            ("/r/a", "/r/a/images/0.png", "images/0.png"),
            ("/r/a", "/r/b/0.png", "../b/0.png"),
            ("/r/a", "/r/a/../c/0.png", "../c/0.png"),
            ("/r/a", "/x/0.png", "../../x/0.png"),
            (
                "/r",
                "/r/<img src=x>/a b#?.png",
                "%3Cimg%20src%3Dx%3E/a%20b%23%3F.png",
            ),
        ] {
            assert_eq!(link(Path::new(folder), Path::new(file)), expected);
        }
    }
}
