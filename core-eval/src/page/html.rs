//! The file `report.html`: the template with the data of a page.

use std::fmt::Write;

use crate::base64::base64;

/// Markup, style and program.
const TEMPLATE: &str = include_str!("../../assets/report.html");

/// Where the data goes.
const PLACE: &str = "<!--data-->";

/// A file inside a page.
pub(super) struct Embedded {
    /// What the page's program calls it.
    pub(super) id: String,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// The page. Text of users stands in the data alone, where it cannot end the element that it is in.
pub(super) fn render(data: &str, files: &[Embedded]) -> String {
    let (before, after) = TEMPLATE.split_once(PLACE).unwrap_or((TEMPLATE, ""));
    let data = data.replace('<', "\\u003c");
    let size: usize = files.iter().map(|file| file.bytes.len() * 4 / 3 + 80).sum();
    let mut page = String::with_capacity(TEMPLATE.len() + data.len() + size);
    page.push_str(before);
    page.push_str("<script type=\"application/json\" id=\"data\">");
    page.push_str(&data);
    page.push_str("</script>\n");
    for Embedded { id, bytes } in files {
        let bytes = base64(bytes);
        let _ = writeln!(
            page,
            "<script type=\"text/plain\" id=\"{id}\">{bytes}</script>"
        );
    }
    page.push_str(after);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_users_cannot_leave_its_element() {
        let page = render("{\"name\":\"</script><img src=x>\"}", &[]);
        assert!(!page.contains("</script><img"), "the element was left");
        assert!(page.contains("\\u003c/script>\\u003cimg src=x>"));
    }

    #[test]
    fn the_template_is_small_and_needs_no_network() {
        assert!(TEMPLATE.len() < 58_000, "{} bytes", TEMPLATE.len());
        let policy = "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'";
        assert!(TEMPLATE.contains(policy));
        for word in ["http:", "https:", "innerHTML", "eval(", "@import"] {
            let text = TEMPLATE.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(word), "{word}");
        }
        assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
    }
}
