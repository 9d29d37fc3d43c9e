//! A page of tables from JSON schemas: every key with type, default and meaning.

use std::fmt::Write;

use serde_json::{Map, Value};

/// One kind of TOML file.
pub(crate) struct FileKind {
    /// The name of its schema's file.
    pub(crate) name: &'static str,
    /// The heading of its section.
    pub(crate) title: &'static str,
    pub(crate) schema: Value,
}

const HEAD: &str = "\
# Configuration files

Every key of every TOML file, with its type, its default and its meaning. Unknown keys are errors. Paths are relative to
the file that they stand in. `--set stages.0.steps=100` on the command line, and `set` of an experiment's variant,
change one value by its path; lists count from 0.

The schemas in [`schema/`](schema) say the same to editors. With the extension *Even Better TOML*, or any other that
uses Taplo, write the path of the schema in the first line of a file:

```toml
#:schema ../docs/schema/run.json
```

This page and the schemas are generated from the structs that read the files. A test compares them;
`UPDATE_DOCS=1 cargo test -p core-eval configuration` writes them again.
";

/// The page about all kinds of files.
pub(crate) fn page(kinds: &[FileKind]) -> String {
    let mut page = Page {
        text: HEAD.to_string(),
        sections: Vec::new(),
    };
    for kind in kinds {
        page.kind(kind);
    }
    page.text
}

struct Page {
    text: String,
    /// Definitions that have a section, with its heading.
    sections: Vec<(String, String)>,
}

/// A definition that is still to be described, with the path of keys that leads to it.
struct Pending {
    definition: String,
    path: String,
    list: bool,
}

impl Pending {
    fn heading(&self) -> String {
        match self.list {
            true => format!("`[[{}]]`", self.path),
            false => format!("`[{}]`", self.path),
        }
    }
}

impl Page {
    fn kind(&mut self, kind: &FileKind) {
        let definitions = &kind.schema["$defs"];
        let (title, about) = (kind.title, paragraph(&kind.schema));
        let _ = write!(self.text, "\n## {title}\n\n{about}\n\n");
        let name = kind.schema["title"].as_str().unwrap_or_default();
        if let Some((_, heading)) = self.sections.iter().find(|(known, _)| known == name) {
            let _ = writeln!(self.text, "The keys are those of {}.", link(heading));
            return;
        }
        self.sections.push((name.to_string(), title.to_string()));
        let mut queue = self.table(&kind.schema, definitions, "");
        while !queue.is_empty() {
            let next = queue.remove(0);
            if self
                .sections
                .iter()
                .any(|(name, _)| *name == next.definition)
            {
                continue;
            }
            let heading = next.heading();
            self.sections
                .push((next.definition.clone(), heading.clone()));
            let definition = &definitions[&next.definition];
            let about = paragraph(definition);
            let _ = write!(self.text, "\n### {heading}\n\n{about}\n\n");
            let deeper = match definition["oneOf"].as_array() {
                Some(forms) => self.forms(forms, definitions, &next.path),
                None => self.table(definition, definitions, &next.path),
            };
            // Depth first, so that a table stands below the one that holds it.
            queue.splice(0..0, deeper);
        }
    }

    /// The tables of entries that are told apart by a key with a constant, as `kind`.
    fn forms(&mut self, forms: &[Value], definitions: &Value, path: &str) -> Vec<Pending> {
        let mut pending = Vec::new();
        let mut last = String::new();
        for form in forms {
            let constant = properties(form).find(|(_, property)| property.get("const").is_some());
            if let Some((key, property)) = constant {
                let (value, about) = (&property["const"], paragraph(form));
                let _ = write!(self.text, "#### `{key} = {value}`\n\n{about}\n\n");
            }
            let start = self.text.len();
            pending.extend(self.table(form, definitions, path));
            let table = self.text[start..].to_string();
            if table == last {
                self.text.truncate(start);
                self.text.push_str("The keys are the same.\n");
            }
            last = table;
            self.text.push('\n');
        }
        self.text.pop();
        pending
    }

    /// The keys of one table; the definitions that it refers to.
    fn table(&mut self, schema: &Value, definitions: &Value, path: &str) -> Vec<Pending> {
        let mut pending = Vec::new();
        self.text
            .push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        let required = schema["required"].as_array();
        for (key, property) in properties(schema) {
            if property.get("const").is_some() {
                continue;
            }
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            let must = required.is_some_and(|names| names.iter().any(|name| name == key));
            let default = match (&property["default"], must) {
                (Value::Null, true) => "required".to_string(),
                (Value::Null, false) => "absent".to_string(),
                (Value::Object(keys), _) if keys.is_empty() => "empty".to_string(),
                (Value::Object(_), _) => "the defaults of its keys".to_string(),
                (default, _) => format!("`{default}`"),
            };
            let kind = kind_of(property, definitions, &path, false, &mut pending);
            let mut about = sentences(property);
            about.push_str(&values(property, definitions));
            let _ = writeln!(self.text, "| `{key}` | {kind} | {default} | {about} |");
        }
        pending
    }
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(Map::iter)
}

/// A link to a section, as the anchors of headings are made.
fn link(heading: &str) -> String {
    let anchor = heading.to_lowercase().replace(' ', "-");
    let anchor: String = anchor
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .collect();
    format!("[{heading}](#{anchor})")
}

/// The description in lines of at most 120 characters.
fn paragraph(schema: &Value) -> String {
    let mut lines = vec![String::new()];
    for word in sentences(schema).split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 120 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines.join("\n")
}

/// The description on one line.
fn sentences(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// The definition that a schema refers to.
fn target<'a>(schema: &'a Value, definitions: &'a Value) -> Option<(&'a str, &'a Value)> {
    let name = schema["$ref"].as_str()?.strip_prefix("#/$defs/")?;
    Some((name, &definitions[name]))
}

/// The words of an enum, with what each means.
fn words(schema: &Value) -> Option<Vec<(String, String)>> {
    let forms = schema["oneOf"].as_array()?;
    let word = |form: &Value| Some((form["const"].as_str()?.to_string(), sentences(form)));
    forms.iter().map(word).collect()
}

fn kind_of(
    schema: &Value,
    definitions: &Value,
    path: &str,
    list: bool,
    pending: &mut Vec<Pending>,
) -> String {
    if let Some((name, definition)) = target(schema, definitions) {
        let tables = definition["oneOf"].as_array();
        let is_table = definition["type"] == "object"
            || words(definition).is_none() && tables.is_some_and(|f| f.iter().all(is_table));
        if is_table {
            let next = Pending {
                definition: name.to_string(),
                path: path.to_string(),
                list,
            };
            let table = format!("table {}", link(&next.heading()));
            pending.push(next);
            return table;
        }
        return kind_of(definition, definitions, path, list, pending);
    }
    if let Some(words) = words(schema) {
        let words: Vec<String> = words
            .iter()
            .map(|(word, _)| format!("`\"{word}\"`"))
            .collect();
        return words.join(", ");
    }
    if let Some(constant) = schema.get("const") {
        return format!("`{constant}`");
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(forms) = schema[key].as_array() {
            let forms = forms.iter();
            let kinds: Vec<String> = forms
                .map(|form| kind_of(form, definitions, path, list, pending))
                .collect();
            return kinds.join(" or ");
        }
    }
    match schema["type"].as_str() {
        Some("array") => {
            let items = kind_of(&schema["items"], definitions, path, true, pending);
            match (items.strip_prefix("table "), schema["maxItems"].as_u64()) {
                (Some(heading), _) => format!("list of tables {heading}"),
                (None, Some(length)) => format!("list of {length} {items}s"),
                (None, None) if schema["items"].get("type").is_some() => {
                    format!("list of {items}s")
                }
                (None, None) => format!("list of {items}"),
            }
        }
        Some("object") if schema.get("properties").is_some() => {
            let keys: Vec<&str> = properties(schema).map(|(key, _)| key.as_str()).collect();
            format!("`{{ {} }}`", keys.join(", "))
        }
        Some("object") => "table".to_string(),
        Some(name) => name.to_string(),
        None => "any value".to_string(),
    }
}

fn is_table(schema: &Value) -> bool {
    schema["type"] == "object"
}

/// What each word of an enum, each form of a value, and each key of a table on one line means.
fn values(schema: &Value, definitions: &Value) -> String {
    if let Some((_, definition)) = target(schema, definitions) {
        // A table has a section of its own.
        return match definition.get("properties") {
            Some(_) => String::new(),
            None => values(definition, definitions),
        };
    }
    if schema["type"] == "array" {
        return values(&schema["items"], definitions);
    }
    let forms = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    let mut text = String::new();
    for form in forms.into_iter().flatten() {
        if is_table(form) && properties(form).any(|(_, key)| key.get("const").is_some()) {
            continue;
        }
        let label = match (form.get("const"), form.get("properties")) {
            (Some(value), _) => format!("`{value}`"),
            (None, Some(_)) => kind_of(form, definitions, "", false, &mut Vec::new()),
            (None, None) => String::new(),
        };
        let about = sentences(form);
        match (label.is_empty(), about.is_empty()) {
            (_, true) => {}
            (true, false) => text.push_str(&format!("<br>{about}")),
            (false, false) => text.push_str(&format!("<br>{label}: {about}")),
        }
        for (key, property) in properties(form) {
            let about = sentences(property);
            if !about.is_empty() {
                text.push_str(&format!("<br>`{key}`: {about}"));
            }
        }
        text.push_str(&values(form, definitions));
    }
    text
}
