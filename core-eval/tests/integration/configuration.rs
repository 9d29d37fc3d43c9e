//! `docs/configuration.md` and `docs/schema/` are what the structs that read TOML files say.
//!
//! `UPDATE_DOCS=1 cargo test -p core-eval configuration` writes them again.

use std::path::PathBuf;

use core_eval::experiment::Experiment;
use core_train::RunConfig;
use core_train::config::{ConceptConfig, Recipe};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use crate::common::checkout;
use crate::key_tables::{FileKind, page};

fn schema<T: JsonSchema>() -> Value {
    let mut schema = SchemaGenerator::default()
        .into_root_schema_for::<T>()
        .to_value();
    simplify(&mut schema);
    schema
}

/// Removes what TOML does not have (null) and what editors do not know (formats of Rust numbers).
fn simplify(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("format");
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    object["type"] = only.clone();
                }
            }
            if let Some(Value::Array(forms)) = object.get_mut("anyOf") {
                forms.retain(|form| form["type"] != "null");
                if let [Value::Object(only)] = forms.as_slice() {
                    let only = only.clone();
                    object.shift_remove("anyOf");
                    for (key, entry) in only {
                        object.entry(key).or_insert(entry);
                    }
                }
            }
            object.values_mut().for_each(simplify);
        }
        Value::Array(list) => list.iter_mut().for_each(simplify),
        _ => {}
    }
}

fn kinds() -> [FileKind; 4] {
    [
        FileKind {
            name: "run",
            title: "Run files",
            schema: schema::<RunConfig>(),
        },
        FileKind {
            name: "recipe",
            title: "Recipes",
            schema: schema::<Recipe>(),
        },
        FileKind {
            name: "concept",
            title: "`concept.toml`",
            schema: schema::<ConceptConfig>(),
        },
        FileKind {
            name: "experiment",
            title: "Experiments",
            schema: schema::<Experiment>(),
        },
    ]
}

/// The committed files: their names and what they must contain.
fn files() -> Vec<(PathBuf, String)> {
    let docs = checkout().join("docs");
    let kinds = kinds();
    let mut files: Vec<(PathBuf, String)> = kinds
        .iter()
        .map(|kind| {
            let text = serde_json::to_string_pretty(&kind.schema).unwrap();
            (docs.join(format!("schema/{}.json", kind.name)), text + "\n")
        })
        .collect();
    files.push((docs.join("configuration.md"), page(&kinds)));
    files
}

#[test]
fn the_reference_of_toml_files_is_what_their_structs_say() {
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    for (path, text) in files() {
        if update {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "{} is stale; run UPDATE_DOCS=1 cargo test -p core-eval configuration",
            path.display()
        );
    }
}

#[test]
fn descriptions_of_keys_are_sentences_without_rustdoc_links() {
    fn check(value: &Value, at: &str) {
        match value {
            Value::Object(object) => {
                if let Some(properties) = object.get("properties").and_then(Value::as_object) {
                    // A form with a single key, as `{ word = "toy" }`, is described as a whole.
                    let whole = (properties.len() == 1).then(|| &object["description"]);
                    for (key, property) in properties {
                        let constant = property.get("const").is_some();
                        let text = property.get("description").or(whole);
                        let text = text.and_then(Value::as_str).unwrap_or_default();
                        assert!(constant || text.ends_with('.'), "{at}.{key}: `{text}`");
                        assert!(!text.contains("[`"), "{at}.{key} has a link: `{text}`");
                    }
                }
                for (key, entry) in object {
                    check(entry, &format!("{at}.{key}"));
                }
            }
            Value::Array(list) => list.iter().for_each(|entry| check(entry, at)),
            _ => {}
        }
    }
    for kind in kinds() {
        check(&kind.schema, kind.name);
    }
}
