//! One multiple-choice question per attribute, whose answers are short captions. The CLIP models are
//! trained on them besides the contrastive loss, and they measure zero-shot quality.

use burn::tensor::{Device, Tensor};

use super::contrast::cross_entropy;
use super::objective::Quality;
use super::scenes::LabelledScene;
use crate::world::{Accessory, Attributes, Background, Category, Color, Expression, Style};

/// The attributes with a question, in the order of the tables.
const NAMES: [&str; 6] = [
    "noun",
    "color",
    "accessory",
    "background",
    "style",
    "expression",
];

/// The captions of all answers, and which of them compete for which scene.
#[derive(Debug)]
pub(super) struct Questions {
    nouns: &'static [Category],
    captions: Vec<String>,
    /// For each attribute and noun, the index of its first answer and the number of answers.
    places: Vec<Vec<(usize, usize)>>,
}

impl Questions {
    /// The questions about scenes that show these nouns.
    pub(super) fn new(nouns: &'static [Category]) -> Self {
        let mut questions = Self {
            nouns,
            captions: Vec::new(),
            places: Vec::new(),
        };
        // The noun has the same answers for every scene.
        let answers = questions.push(nouns.iter().map(|noun| plain(*noun)).collect());
        questions.places.push(vec![answers; nouns.len()]);
        questions.ask(|category| {
            let colors = Color::ALL.iter();
            match category {
                Category::Person => colors
                    .map(|color| format!("{} in {}", plain(category), color.word()))
                    .collect(),
                _ => colors
                    .map(|color| format!("{} {}", color.article_and_word(), category.word()))
                    .collect(),
            }
        });
        questions.ask(|category| {
            if !category.is_animate() {
                return Vec::new();
            }
            let with = Accessory::ALL
                .iter()
                .map(|accessory| format!("{} {}", plain(category), accessory.phrase()));
            std::iter::once(plain(category)).chain(with).collect()
        });
        questions.ask(|category| {
            Background::ALL
                .iter()
                .map(|b| join(plain(category), b.phrase()))
                .collect()
        });
        questions.ask(|category| {
            Style::ALL
                .iter()
                .map(|s| format!("{} {}", s.phrase(), plain(category)))
                .collect()
        });
        questions.ask(|category| {
            if category != Category::Person {
                return Vec::new();
            }
            let shown = Expression::ALL
                .iter()
                .map(|expression| format!("a {} {}", expression.word(), category.word()));
            std::iter::once(plain(category)).chain(shown).collect()
        });
        questions
    }

    fn ask(&mut self, answers: impl Fn(Category) -> Vec<String>) {
        let nouns = self.nouns;
        let places = nouns
            .iter()
            .map(|category| self.push(answers(*category)))
            .collect();
        self.places.push(places);
    }

    fn push(&mut self, answers: Vec<String>) -> (usize, usize) {
        let place = (self.captions.len(), answers.len());
        self.captions.extend(answers);
        place
    }

    /// The answers of all questions.
    pub(super) fn captions(&self) -> &[String] {
        &self.captions
    }

    /// The answers that compete for a scene, and the index of the right one among them; `None` where
    /// the question makes no sense, as for the hat of a house. A scene shows one of the nouns.
    fn question(&self, attribute: usize, scene: &Attributes) -> Option<(usize, usize, usize)> {
        let (start, count) = self.places[attribute][scene.category.index()];
        let right = match attribute {
            0 => scene.category.index(),
            1 => scene.color.index(),
            2 => scene.accessory.map_or(0, |accessory| 1 + accessory.index()),
            3 => scene.background.index(),
            4 => scene.style.index(),
            _ => scene.expression.map_or(0, |shown| 1 + shown.index()),
        };
        (count > 0).then_some((start, count, right))
    }

    /// The mean cross-entropy over the attributes; `logits` is [scenes, captions].
    pub(super) fn loss(
        &self,
        logits: Tensor<2>,
        batch: &[LabelledScene],
        device: &Device,
    ) -> Tensor<1> {
        let mut losses = Vec::new();
        for attribute in 0..NAMES.len() {
            let asked: Vec<(usize, (usize, usize, usize))> = batch
                .iter()
                .enumerate()
                .filter_map(|(row, scene)| {
                    Some((row, self.question(attribute, &scene.attributes)?))
                })
                .collect();
            let Some((_, (_, count, _))) = asked.first() else {
                continue;
            };
            let count = *count;
            let columns = logits.dims()[1];
            let chosen: Vec<i64> = asked
                .iter()
                .flat_map(|(row, (start, _, _))| {
                    (0..count).map(move |answer| (row * columns + start + answer) as i64)
                })
                .collect();
            let chosen = Tensor::<1, burn::tensor::Int>::from_data(chosen.as_slice(), device);
            let flat: Tensor<1> = logits.clone().reshape([-1]);
            let answers = flat.select(0, chosen).reshape([asked.len(), count]);
            let right = asked
                .iter()
                .map(|(_, (_, _, right))| *right as i64)
                .collect();
            losses.push(cross_entropy(answers, right, device));
        }
        let count = losses.len() as f64;
        Tensor::cat(losses, 0).sum() / count
    }

    /// The share of right answers per attribute, of things and, with `people_` before the name, of
    /// people; `logits` is row-major [scenes, captions].
    pub(super) fn accuracy(&self, logits: &[f32], scenes: &[Attributes]) -> Quality {
        let columns = self.captions.len();
        let mut quality = Quality::new();
        for (prefix, of_people) in [("", false), ("people_", true)] {
            for (attribute, name) in NAMES.iter().enumerate() {
                let rows = logits.chunks(columns).zip(scenes);
                let answered: Vec<bool> = rows
                    .filter(|(_, scene)| (scene.category == Category::Person) == of_people)
                    .filter_map(|(logits, scene)| self.is_right(attribute, logits, scene))
                    .collect();
                if !answered.is_empty() {
                    let right = answered.iter().filter(|right| **right).count();
                    let share = right as f64 / answered.len() as f64;
                    quality.push((format!("{prefix}{name}"), share));
                }
            }
        }
        quality
    }

    /// Whether the best answer about a scene is the right one; `None` where the question makes no sense.
    fn is_right(&self, attribute: usize, logits: &[f32], scene: &Attributes) -> Option<bool> {
        let (start, count, right) = self.question(attribute, scene)?;
        let answers = &logits[start..][..count];
        let best = (0..count).max_by(|a, b| answers[*a].total_cmp(&answers[*b]));
        Some(best == Some(right))
    }
}

/// "a dog".
fn plain(category: Category) -> String {
    format!("a {}", category.word())
}

fn join(start: String, end: &str) -> String {
    if end.is_empty() {
        start
    } else {
        format!("{start} {end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(expression: Option<Expression>) -> Attributes {
        Attributes {
            category: Category::Person,
            color: Color::Red,
            expression,
            accessory: None,
            background: Background::Snow,
            style: Style::Photo,
        }
    }

    fn dog() -> Attributes {
        Attributes {
            category: Category::Dog,
            ..person(None)
        }
    }

    /// The answers that compete for a scene.
    fn answers<'a>(questions: &'a Questions, name: &str, scene: &Attributes) -> &'a [String] {
        let attribute = NAMES.iter().position(|other| *other == name);
        let question = attribute.and_then(|attribute| questions.question(attribute, scene));
        question.map_or(&[], |(start, count, _)| {
            &questions.captions[start..][..count]
        })
    }

    #[test]
    fn questions_about_things_know_eight_nouns_and_ask_nothing_about_faces() {
        let questions = Questions::new(Category::THINGS);
        assert_eq!(answers(&questions, "noun", &dog()).len(), 8);
        assert_eq!(answers(&questions, "color", &dog())[0], "a red dog");
        assert!(answers(&questions, "expression", &dog()).is_empty());
        assert!(
            !questions
                .captions()
                .iter()
                .any(|text| text.contains("person"))
        );
        // 8 nouns; 8 colours, 9 places and 4 styles of each; 4 ways to dress 4 animals.
        assert_eq!(questions.captions().len(), 8 + 8 * (8 + 9 + 4) + 4 * 4);
    }

    #[test]
    fn people_have_a_ninth_noun_coloured_clothes_and_expressions() {
        let questions = Questions::new(Category::ALL);
        let smiling = person(Some(Expression::Smiling));
        assert_eq!(answers(&questions, "noun", &dog()).len(), 9);
        assert_eq!(answers(&questions, "noun", &smiling)[8], "a person");
        assert_eq!(answers(&questions, "color", &smiling)[0], "a person in red");
        assert_eq!(
            answers(&questions, "expression", &smiling),
            ["a person", "a smiling person", "a frowning person"]
        );
        assert!(answers(&questions, "expression", &dog()).is_empty());
    }

    #[test]
    fn things_and_people_are_counted_apart() {
        let questions = Questions::new(Category::ALL);
        let scenes = [
            dog(),
            person(Some(Expression::Smiling)),
            person(Some(Expression::Frowning)),
        ];
        let mut logits = Vec::new();
        for _ in &scenes {
            let says = |text: &String| ["a dog", "a smiling person"].contains(&text.as_str());
            let row = questions
                .captions()
                .iter()
                .map(|text| if says(text) { 1.0 } else { 0.0 });
            logits.extend(row);
        }
        let quality = questions.accuracy(&logits, &scenes);
        let figure = |name: &str| {
            let found = quality.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| *value)
        };
        assert_eq!(figure("noun"), Some(1.0));
        assert_eq!(figure("people_noun"), Some(0.0));
        assert_eq!(figure("people_expression"), Some(0.5));
        assert_eq!(figure("expression"), None);
    }
}
