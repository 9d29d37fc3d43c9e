//! An entry of `train`: a set of weights by its name, or a table with its keys.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::{Value, json};
use toml::Table;

use crate::adapters::AdapterConfig;

/// `"unet"`, or `{ kind = "unet", learning_rate = 2e-6 }` with a learning rate and keys of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainEntry {
    /// The set of weights.
    pub adapter: AdapterConfig,
    /// Its learning rate; the stage's when absent.
    pub learning_rate: Option<f64>,
}

impl TrainEntry {
    /// The set of this name with defaults for all keys; `None` for an unknown name.
    pub fn named(kind: &str) -> Option<Self> {
        AdapterConfig::named(kind).map(Self::from)
    }

    /// Whether it trains the tensor of this name.
    pub fn moves(&self, name: &str) -> bool {
        self.adapter.adapter().moves(name)
    }
}

impl From<AdapterConfig> for TrainEntry {
    fn from(adapter: AdapterConfig) -> Self {
        Self {
            adapter,
            learning_rate: None,
        }
    }
}

impl<'de> Deserialize<'de> for TrainEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = TrainEntry;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = AdapterConfig::KINDS.join(", ");
        write!(f, "one of {names}, or a table {{ kind = NAME, .. }}")
    }

    fn visit_str<E: de::Error>(self, kind: &str) -> Result<TrainEntry, E> {
        TrainEntry::named(kind).ok_or_else(|| E::unknown_variant(kind, AdapterConfig::KINDS))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TrainEntry, A::Error> {
        let mut keys = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let kind = match keys.remove("kind") {
            Some(toml::Value::String(kind)) => kind,
            Some(_) => return Err(de::Error::custom("`kind` must be a name in quotes")),
            None => return Err(de::Error::missing_field("kind")),
        };
        let learning_rate = match keys.remove("learning_rate") {
            None => None,
            Some(toml::Value::Float(rate)) => Some(rate),
            Some(toml::Value::Integer(rate)) => Some(rate as f64),
            Some(_) => return Err(de::Error::custom("`learning_rate` must be a number")),
        };
        let entry: TrainEntry = self.visit_str(&kind)?;
        let adapter = entry.adapter.with_keys(keys).map_err(|error| {
            let reason = error.message();
            de::Error::custom(format!("`{kind}`: {reason}"))
        })?;
        Ok(TrainEntry {
            adapter,
            learning_rate,
        })
    }
}

impl Serialize for TrainEntry {
    /// The name alone where no key differs from its default.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.adapter.kind();
        let keys = self.adapter.keys().map_err(S::Error::custom)?;
        if keys.is_empty() && self.learning_rate.is_none() {
            return serializer.serialize_str(kind);
        }
        let mut table = Table::new();
        table.insert("kind".into(), toml::Value::String(kind.into()));
        if let Some(rate) = self.learning_rate {
            table.insert("learning_rate".into(), toml::Value::Float(rate));
        }
        table.extend(keys);
        table.serialize(serializer)
    }
}

impl JsonSchema for TrainEntry {
    fn schema_name() -> Cow<'static, str> {
        "TrainEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds = AdapterConfig::schemas(generator).into_iter();
        let names: Vec<Value> = kinds
            .map(
                |(kind, schema)| json!({ "const": kind, "description": schema.get("description") }),
            )
            .collect();
        let tables = generator.subschema_for::<EntryTable>();
        json_schema!({ "anyOf": [{ "oneOf": names }, tables] })
    }
}

/// An entry of `train` that is a table.
struct EntryTable;

impl JsonSchema for EntryTable {
    fn schema_name() -> Cow<'static, str> {
        "TrainTable".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kinds = AdapterConfig::schemas(generator).into_iter();
        let tables: Vec<Value> = kinds
            .map(|(kind, schema)| {
                let mut properties = json!({
                    "kind": { "const": kind },
                    "learning_rate": {
                        "type": "number",
                        "description": "Its own learning rate. Absent: the learning rate of the stage.",
                    },
                });
                let own = schema.get("properties").and_then(Value::as_object);
                for (key, property) in own.into_iter().flatten() {
                    properties[key] = property.clone();
                }
                json!({
                    "type": "object",
                    "description": schema.get("description"),
                    "properties": properties,
                    "required": ["kind"],
                    "additionalProperties": false,
                })
            })
            .collect();
        json_schema!({
            "description": "A set of weights with keys of its own. A name alone is the set with the defaults of its keys.",
            "oneOf": tables,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::TrainEntry;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Stage {
        train: Vec<TrainEntry>,
    }

    fn parse(text: &str) -> Result<Stage, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_is_a_table_with_defaults_and_is_written_as_a_name_again() {
        let name = parse("train = [\"unet\"]").unwrap();
        assert_eq!(parse("train = [{ kind = \"unet\" }]").unwrap(), name);
        assert_eq!(toml::to_string(&name).unwrap(), "train = [\"unet\"]\n");
        let table = parse("train = [{ kind = \"unet\", learning_rate = 2e-6 }]").unwrap();
        assert_eq!(table.train[0].learning_rate, Some(2e-6));
        assert_eq!(parse(&toml::to_string(&table).unwrap()).unwrap(), table);
    }

    #[test]
    fn unknown_names_and_keys_are_refused_with_the_valid_ones() {
        let message = parse("train = [\"unett\"]").unwrap_err();
        assert!(
            message.contains("unett") && message.contains("cross_attention_kv"),
            "{message}"
        );
        let message = parse("train = [{ kind = \"unett\" }]").unwrap_err();
        assert!(message.contains("cross_attention_kv"), "{message}");
        let message = parse("train = [{ kind = \"unet\", rank = 4 }]").unwrap_err();
        assert!(
            message.contains("`unet`") && message.contains("rank"),
            "{message}"
        );
        let message = parse("train = [{ rank = 4 }]").unwrap_err();
        assert!(message.contains("kind"), "{message}");
    }
}
