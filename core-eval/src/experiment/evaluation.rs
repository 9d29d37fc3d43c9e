//! `[evaluation]` of an experiment: the networks and protocols that images are scored with.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use core_model::folder::EncoderFolder;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Map;

use crate::metrics::{EncoderFolders, EncoderKind, FaceInput};
use crate::protocol::Protocol;

/// The key of the prompt of base images.
const BASE_PROMPT: &str = "base_prompt";

/// `[evaluation]`.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// How scores are computed.
    pub protocol: OneOrMore,
    /// The folders of the image encoders, under the keys of the table of metrics, and `clipseg`,
    /// which makes the masks that masked protocols need.
    pub encoders: EncoderFolders,
    /// The prompt of the base model's images from which the directions of directional CLIP begin.
    /// Absent: that metric does not run.
    pub base_prompt: Option<String>,
}

impl Evaluation {
    /// Refuses masks that nothing uses, and masks that are missing for a masked protocol or for an encoder
    /// that is given faces in this way.
    ///
    /// # Errors
    /// As [`Protocol::check_masks`].
    pub fn check_masks(&self, faces: Option<FaceInput>) -> Result<()> {
        let protocols = self.protocols()?;
        let given = self.encoders.clipseg.is_some();
        let faces = faces == Some(FaceInput::WholeImage);
        match protocols.iter().find(|protocol| protocol.masked) {
            Some(masked) => masked.check_masks(given, faces),
            None => protocols
                .iter()
                .try_for_each(|p| p.check_masks(given, faces)),
        }
    }

    /// The protocols. The result files of the first have no suffix.
    ///
    /// # Errors
    /// Unknown names, a name twice, none at all.
    pub fn protocols(&self) -> Result<Vec<&'static Protocol>> {
        let names = self.protocol.names();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                bail!("`evaluation.protocol` names `{name}` twice");
            }
        }
        if names.is_empty() {
            bail!("`evaluation.protocol` names no protocol; write \"dreambooth\"");
        }
        names.into_iter().map(Protocol::named).collect()
    }
}

impl JsonSchema for Evaluation {
    fn schema_name() -> Cow<'static, str> {
        "Evaluation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut protocol = generator.subschema_for::<OneOrMore>();
        let names: Vec<String> = Protocol::names().map(|name| format!("`{name}`")).collect();
        let about = format!("The protocol, or a list of them: {}.", names.join(", "));
        protocol.insert("description".into(), about.into());
        let folder = |what: &str| {
            json_schema!({
                "type": "string",
                "description": format!("A folder or hub repository with {what}."),
            })
        };
        let segmenter =
            "a CLIPSeg model, which makes the foreground masks that masked protocols need";
        let mut properties = Map::new();
        properties.insert("protocol".into(), protocol.into());
        let mut required = vec!["protocol"];
        for kind in EncoderKind::all() {
            properties.insert(kind.key.into(), folder(kind.folder).into());
            if kind.required {
                required.push(kind.key);
            }
        }
        properties.insert("clipseg".into(), folder(segmenter).into());
        let about = "Adds the metric `clip_direction`: one of the prompts, whose images by the base \
                     model are where its directions begin, as in \"a photo of a {}\". Absent: it does \
                     not run.";
        let prompt = json_schema!({ "type": "string", "description": about });
        properties.insert(BASE_PROMPT.into(), prompt.into());
        json_schema!({
            "type": "object",
            "description": "The image encoders and the protocols that images are scored with.",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }
}

/// The keys of encoders are those of the table of metrics, so they cannot be fields.
impl<'de> Deserialize<'de> for Evaluation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Evaluation;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with `protocol` and folders of image encoders")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Evaluation, A::Error> {
        let (mut protocol, mut base_prompt) = (None, None);
        let mut encoders = EncoderFolders::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Protocol => protocol = Some(map.next_value()?),
                Key::BasePrompt => base_prompt = Some(map.next_value()?),
                Key::Segmenter => {
                    let folder = map.next_value::<PathBuf>()?;
                    encoders.clipseg = Some(EncoderFolder::new(folder));
                }
                Key::Encoder(kind) => encoders.set(kind, map.next_value()?),
            }
        }
        for kind in EncoderKind::all() {
            if kind.required && encoders.get(kind).is_none() {
                return Err(A::Error::missing_field(kind.key));
            }
        }
        Ok(Evaluation {
            protocol: protocol.ok_or_else(|| A::Error::missing_field("protocol"))?,
            encoders,
            base_prompt,
        })
    }
}

/// A key of the table.
enum Key {
    Protocol,
    BasePrompt,
    Segmenter,
    Encoder(&'static EncoderKind),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = String::deserialize(deserializer)?;
        let kinds = EncoderKind::all();
        match (key.as_str(), kinds.iter().find(|kind| kind.key == key)) {
            ("protocol", _) => Ok(Self::Protocol),
            ("clipseg", _) => Ok(Self::Segmenter),
            (BASE_PROMPT, _) => Ok(Self::BasePrompt),
            (_, Some(kind)) => Ok(Self::Encoder(kind)),
            (_, None) => {
                let encoders = kinds.iter().map(|kind| kind.key);
                let known: Vec<&str> = ["protocol", BASE_PROMPT, "clipseg"]
                    .into_iter()
                    .chain(encoders)
                    .collect();
                let known = known.join(", ");
                Err(D::Error::custom(format!(
                    "unknown key `{key}`, expected one of {known}"
                )))
            }
        }
    }
}

/// A name or a list of names.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One name.
    One(String),
    /// Several names. The result files of the first have no suffix.
    More(Vec<String>),
}

impl OneOrMore {
    /// The names, in order.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::One(name) => vec![name],
            Self::More(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        let parsed: Result<Evaluation, _> = toml::from_str(text);
        parsed.expect_err("a wrong table").to_string()
    }

    #[test]
    fn the_folders_of_required_encoders_must_be_named_and_no_other_key_may() {
        let text = "protocol = \"core\"\nclip = \"a\"\ndino = \"b\"\nclipseg = \"c\"";
        let evaluation: Evaluation = toml::from_str(text).expect("a whole table");
        let paths: Vec<String> = evaluation
            .encoders
            .paths()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(paths, ["a", "b", "c"]);
        let missing = failure("protocol = \"core\"\nclip = \"a\"");
        assert!(missing.contains("missing field `dino`"), "{missing}");
        let unknown = failure(&format!("{text}\nclips = \"d\""));
        for part in [
            "line 5",
            "unknown key `clips`",
            "protocol, base_prompt, clipseg, clip, dino",
        ] {
            assert!(unknown.contains(part), "{part}: {unknown}");
        }
    }
}
