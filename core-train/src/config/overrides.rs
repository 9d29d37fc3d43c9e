//! `--set stages.0.learning_rate=1e-3`: edits of a TOML tree by dotted path.

use toml::{Table, Value};

use crate::error::{Error, Result};

/// The parts of the longest path. No file of this crate nests its tables more deeply.
const DEEPEST: usize = 32;

/// Applies `path=value`; the value is TOML, or text when it is no TOML.
///
/// # Errors
/// [`Error::Override`] when there is no `=` or the path leads nowhere.
pub fn set_argument(tree: &mut Table, argument: &str) -> Result<()> {
    let refuse = |reason: String| Error::Override {
        argument: argument.to_string(),
        reason,
    };
    let Some((path, text)) = argument.split_once('=') else {
        return Err(refuse("write path=value, as in stages.0.steps=100".into()));
    };
    let (path, text) = (path.trim(), text.trim());
    let value = match toml::from_str::<Table>(&format!("value = {text}")) {
        Ok(mut table) => table.remove("value"),
        Err(_) => None,
    };
    let value = value.unwrap_or_else(|| Value::String(text.to_string()));
    set_path(tree, path, value).map_err(refuse)
}

/// Sets the value at a dotted path whose parts are keys or, in lists, numbers from 0.
///
/// Keys and tables that the file leaves out are added: whether they exist at all is for the
/// structs to say, which then refuse unknown ones. A list has the entries it has.
///
/// # Errors
/// What is wrong, when the path is empty, leaves a list or goes through a value.
pub fn set_path(tree: &mut Table, path: &str, value: Value) -> Result<(), String> {
    let parts: Vec<&str> = path.split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!(
            "`{path}` is no path; write for example stages.0.steps"
        ));
    }
    if parts.len() > DEEPEST {
        return Err(format!(
            "a path of {} parts leads nowhere; {DEEPEST} are the most",
            parts.len()
        ));
    }
    let mut root = Value::Table(std::mem::take(tree));
    let result = descend(&mut root, &parts, path, value);
    if let Value::Table(table) = root {
        *tree = table;
    }
    result
}

fn descend(node: &mut Value, parts: &[&str], path: &str, value: Value) -> Result<(), String> {
    let Some((part, rest)) = parts.split_first() else {
        *node = value;
        return Ok(());
    };
    match node {
        Value::Table(table) => {
            let next = table
                .entry((*part).to_string())
                .or_insert_with(|| Value::Table(Table::new()));
            descend(next, rest, path, value)
        }
        Value::Array(list) => {
            let length = list.len();
            let entry = part.parse::<usize>().ok().and_then(|i| list.get_mut(i));
            let next = entry.ok_or_else(|| {
                format!("`{part}` in `{path}` is no entry of a list of {length}; count from 0")
            })?;
            descend(next, rest, path, value)
        }
        other => Err(format!(
            "`{part}` in `{path}` leads into a {}, which has no parts",
            other.type_str()
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn after(argument: &str) -> Result<String> {
        let mut tree: Table = toml::from_str("device = 'cpu'\n[[stages]]\nsteps = 1\n").unwrap();
        set_argument(&mut tree, argument)?;
        Ok(toml::to_string(&tree).unwrap())
    }

    #[test]
    fn a_path_of_very_many_parts_is_refused() {
        let mut tree = Table::new();
        let path = "a.".repeat(100_000) + "a";
        let reason = set_path(&mut tree, &path, Value::Integer(1)).unwrap_err();
        assert!(reason.contains("100001 parts"), "{reason}");
        assert!(tree.is_empty());
    }

    #[test]
    fn values_are_replaced_and_added() {
        assert!(after("stages.0.steps=20").unwrap().contains("steps = 20"));
        assert!(
            after("stages.0.rescale=false")
                .unwrap()
                .contains("rescale = false")
        );
        let text = after("stages.0.optimizer.eps=1e-6").unwrap();
        let tree: Table = toml::from_str(&text).unwrap();
        let eps = tree["stages"][0]["optimizer"]["eps"].as_float();
        assert_eq!(eps, Some(1e-6));
        assert!(
            after("device=cuda:1")
                .unwrap()
                .contains(r#"device = "cuda:1""#)
        );
        assert!(
            after(r#"stages.0.train=["unet"]"#)
                .unwrap()
                .contains(r#"train = ["unet"]"#)
        );
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for (argument, part) in [
            ("stages.1.steps=2", "list of 1"),
            ("device.x=2", "string"),
            ("stages..steps=2", "no path"),
            ("stages.0.steps", "path=value"),
        ] {
            let message = after(argument).unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains(argument),
                "{message}"
            );
        }
    }
}
