//! The value `false` where a number or a table could stand.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The value `false`; `true` says too little and is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
pub struct Off;

impl JsonSchema for Off {
    fn schema_name() -> Cow<'static, str> {
        "Off".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": false })
    }
}

impl TryFrom<bool> for Off {
    type Error = String;

    fn try_from(on: bool) -> Result<Self, String> {
        if on {
            Err("true says too little".into())
        } else {
            Ok(Self)
        }
    }
}

impl From<Off> for bool {
    fn from(_: Off) -> Self {
        false
    }
}
