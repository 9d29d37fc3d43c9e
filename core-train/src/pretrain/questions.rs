//! One multiple-choice question per attribute, whose answers are short captions. The CLIP models are
//! trained on them besides the contrastive loss, and they measure zero-shot quality.

use burn::tensor::{Device, Tensor};

use super::contrast::cross_entropy;
use super::scenes::LabelledScene;
use super::session::Quality;
use crate::world::{Accessory, Attributes, Background, Category, Color, Style};

/// The attributes with a question, in the order of the tables.
const NAMES: [&str; 5] = ["noun", "color", "accessory", "background", "style"];

/// The captions of all answers, and which of them compete for which scene.
#[derive(Debug)]
pub(super) struct Questions {
    captions: Vec<String>,
    /// For each attribute and category, the index of its first answer and the number of answers.
    places: Vec<Vec<(usize, usize)>>,
}

impl Questions {
    pub(super) fn new() -> Self {
        let mut questions = Self {
            captions: Vec::new(),
            places: Vec::new(),
        };
        // The noun has the same answers for every scene.
        let nouns = questions.push(Category::ALL.iter().map(|c| thing(*c)).collect());
        questions.places.push(vec![nouns; Category::ALL.len()]);
        questions.ask(|category| {
            Color::ALL
                .iter()
                .map(|color| format!("{} {}", color.article_and_word(), category.word()))
                .collect()
        });
        questions.ask(|category| {
            if !category.is_animate() {
                return Vec::new();
            }
            let with = Accessory::ALL
                .iter()
                .map(|a| format!("{} {}", thing(category), a.phrase()));
            std::iter::once(thing(category)).chain(with).collect()
        });
        questions.ask(|category| {
            Background::ALL
                .iter()
                .map(|b| join(thing(category), b.phrase()))
                .collect()
        });
        questions.ask(|category| {
            Style::ALL
                .iter()
                .map(|s| format!("{} {}", s.phrase(), thing(category)))
                .collect()
        });
        questions
    }

    fn ask(&mut self, answers: impl Fn(Category) -> Vec<String>) {
        let places = Category::ALL
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
    /// the question makes no sense, as for the hat of a house.
    fn question(&self, attribute: usize, scene: &Attributes) -> Option<(usize, usize, usize)> {
        let (start, count) = self.places[attribute][scene.category.index()];
        let right = match attribute {
            0 => scene.category.index(),
            1 => scene.color.index(),
            2 => scene.accessory.map_or(0, |accessory| 1 + accessory.index()),
            3 => scene.background.index(),
            _ => scene.style.index(),
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

    /// The share of right answers per attribute; `logits` is row-major [scenes, captions].
    pub(super) fn accuracy(&self, logits: &[f32], scenes: &[Attributes]) -> Quality {
        let columns = self.captions.len();
        let mut quality = Quality::new();
        for (attribute, name) in NAMES.iter().enumerate() {
            let (mut right_answers, mut asked) = (0, 0);
            for (row, scene) in scenes.iter().enumerate() {
                let Some((start, count, right)) = self.question(attribute, scene) else {
                    continue;
                };
                let answers = &logits[row * columns + start..][..count];
                let best = (0..count).max_by(|a, b| answers[*a].total_cmp(&answers[*b]));
                asked += 1;
                right_answers += usize::from(best == Some(right));
            }
            if asked > 0 {
                quality.push(((*name).into(), right_answers as f64 / asked as f64));
            }
        }
        quality
    }
}

fn thing(category: Category) -> String {
    format!("a {}", category.word())
}

fn join(start: String, end: &str) -> String {
    if end.is_empty() {
        start
    } else {
        format!("{start} {end}")
    }
}
