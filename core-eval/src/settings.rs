//! The numbers of a recipe that variants change one at a time, `settings.csv`: what a curve over a setting is
//! drawn from.

use std::collections::BTreeMap;

use anyhow::Result;
use core_train::config::Recipe;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use toml::Value;

use crate::experiment::{Experiment, Variant};

/// The name of the file in a results folder.
pub const SETTINGS: &str = "settings.csv";

/// The fewest values of a setting that make a curve.
const CURVE: usize = 3;

/// One value of a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingRow {
    /// The path of the number in the recipe, as `set` names it, or `guidance_scale`.
    pub key: String,
    /// The same in words.
    pub name: String,
    /// The variant. The first variant of the experiment has a row for every setting.
    pub variant: String,
    /// The number.
    pub value: f64,
}

/// The settings of which the variants have three or more values, the first variant's among them. A variant
/// counts when it differs from the first by that number alone.
///
/// # Errors
/// A recipe that cannot be written as TOML.
pub fn settings(experiment: &Experiment) -> Result<Vec<SettingRow>> {
    let Some((first, others)) = experiment.variants.split_first() else {
        return Ok(Vec::new());
    };
    let Some(base) = leaves_of(experiment, first)? else {
        return Ok(Vec::new());
    };
    let mut curves: IndexMap<String, Vec<(String, f64)>> = IndexMap::new();
    for variant in others.iter().filter(|v| v.test_time == first.test_time) {
        let Some(leaves) = leaves_of(experiment, variant)? else {
            continue;
        };
        if let Some((key, value)) = only_difference(&base, &leaves) {
            let point = (variant.name.clone(), value);
            curves.entry(key).or_default().push(point);
        }
    }
    let mut rows = Vec::new();
    for (key, points) in curves {
        if points.len() + 1 < CURVE {
            continue;
        }
        let own = base
            .get(&key)
            .and_then(number)
            .map(|value| (first.name.clone(), value));
        for (variant, value) in own.into_iter().chain(points) {
            rows.push(SettingRow {
                name: in_words(&key, &base),
                key: key.clone(),
                variant,
                value,
            });
        }
    }
    Ok(rows)
}

type Leaves = BTreeMap<String, Value>;

/// Every value of a variant's recipe by its path, and the guidance of its images; `None` where nothing is trained.
fn leaves_of(experiment: &Experiment, variant: &Variant) -> Result<Option<Leaves>> {
    let Some(recipe): &Option<Recipe> = &variant.recipe else {
        return Ok(None);
    };
    let mut leaves = Leaves::new();
    collect("", &Value::try_from(recipe)?, &mut leaves);
    let guidance_scale = variant.guidance_scale(&experiment.sampling);
    leaves.insert("guidance_scale".into(), guidance_scale.into());
    Ok(Some(leaves))
}

fn collect(path: &str, value: &Value, leaves: &mut Leaves) {
    let below = |key: &str| match path {
        "" => key.to_string(),
        _ => format!("{path}.{key}"),
    };
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                collect(&below(key), value, leaves);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                collect(&below(&index.to_string()), value, leaves);
            }
        }
        leaf => drop(leaves.insert(path.to_string(), leaf.clone())),
    }
}

/// The number in which two recipes differ, if they differ in nothing else.
fn only_difference(base: &Leaves, other: &Leaves) -> Option<(String, f64)> {
    if !base.keys().eq(other.keys()) {
        return None;
    }
    let mut different = other.iter().filter(|(key, value)| base[*key] != **value);
    let (key, value) = different.next()?;
    if different.next().is_some() {
        return None;
    }
    number(&base[key])?;
    Some((key.clone(), number(value)?))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

/// `stages.0.regularizers.1.weight` as "context_attention: weight", with the kind of what the number belongs
/// to; `stages.0.learning_rate` as "embedding: learning_rate", with the name of the stage.
fn in_words(key: &str, base: &Leaves) -> String {
    let Some((owner, last)) = key.rsplit_once('.') else {
        return key.to_string();
    };
    let title = ["kind", "name"].iter().find_map(|title| {
        let title = base.get(&format!("{owner}.{title}"))?;
        title.as_str()
    });
    match title {
        Some(title) => format!("{title}: {last}"),
        None => key.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    fn of(file: &str) -> Vec<SettingRow> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments");
        settings(&Experiment::load(&path.join(file)).unwrap()).unwrap()
    }

    #[test]
    fn a_number_that_variants_change_alone_is_a_curve_through_the_first_variant() {
        let rows = of("development.toml");
        let points: Vec<(&str, f64)> = rows
            .iter()
            .map(|row| (row.variant.as_str(), row.value))
            .collect();
        let expected = [
            ("2.5e-3", 2.5e-3),
            ("5e-3", 5e-3),
            ("1e-2", 1e-2),
            ("2e-2", 2e-2),
        ];
        assert_eq!(points, expected);
        for row in &rows {
            assert_eq!(row.key, "stages.0.learning_rate");
            assert_eq!(row.name, "embedding: learning_rate");
        }
    }

    #[test]
    fn the_weights_of_both_terms_are_curves_of_five_points_each() {
        let rows = of("weights.toml");
        for (name, own) in [
            ("context_embedding: weight", 4.5e-3),
            ("context_attention: weight", 1.5),
        ] {
            let curve: Vec<&SettingRow> = rows.iter().filter(|row| row.name == name).collect();
            assert_eq!(curve.len(), 5, "{name}");
            assert_eq!((curve[0].variant.as_str(), curve[0].value), ("CoRe", own));
        }
        assert_eq!(rows.len(), 10);
    }

    #[test]
    fn guidance_is_a_setting_of_the_images() {
        let rows = of("development-guidance.toml");
        let values: Vec<f64> = rows.iter().map(|row| row.value).collect();
        assert_eq!(values, [7.5, 5.0, 3.5, 2.5, 1.5]);
        assert!(rows.iter().all(|row| row.name == "guidance_scale"));
    }

    #[test]
    fn variants_that_differ_in_more_than_one_number_have_no_curve() {
        assert_eq!(of("ablation.toml"), []);
    }
}
