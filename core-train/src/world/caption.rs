//! Captions, with parts left out at random: `[style] a [colour] noun [accessory] [background]` for
//! things, `[style] a [expression] person [in colour] [accessory] [background]` for people.

use rand::{Rng, RngExt};

use super::{
    Accessory, Attributes, Background, Category, Color, Expression, Identity, Style, View,
};

/// What a caption says about a scene; `None` for what it leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The noun.
    pub category: Category,
    /// The colour word.
    pub color: Option<Color>,
    /// What the face shows.
    pub expression: Option<Expression>,
    /// What is worn.
    pub accessory: Option<Accessory>,
    /// The place.
    pub background: Option<Background>,
    /// The medium.
    pub style: Option<Style>,
}

impl Claims {
    /// Whether every claim is true of a scene.
    pub fn are_true_of(&self, scene: &Attributes) -> bool {
        self.category == scene.category
            && self.color.is_none_or(|color| color == scene.color)
            && self
                .expression
                .is_none_or(|expression| scene.expression == Some(expression))
            && self
                .accessory
                .is_none_or(|accessory| scene.accessory == Some(accessory))
            && self
                .background
                .is_none_or(|background| background == scene.background)
            && self.style.is_none_or(|style| style == scene.style)
    }
}

/// A sentence and its claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// The sentence.
    pub text: String,
    /// What the sentence claims.
    pub claims: Claims,
}

impl Caption {
    /// A caption that names every attribute that has a word.
    pub fn full(identity: &Identity, view: &View) -> Self {
        let Attributes {
            category,
            color,
            expression,
            accessory,
            background,
            style,
        } = Attributes::of(identity, view);
        let claims = Claims {
            category,
            color: Some(color),
            expression,
            accessory,
            background: Some(background),
            style: Some(style),
        };
        Self {
            text: sentence(&claims, |_| false),
            claims,
        }
    }

    /// A caption that leaves out some parts and paraphrases some of the others, at random.
    pub fn sample(generator: &mut impl Rng, identity: &Identity, view: &View) -> Self {
        let scene = Attributes::of(identity, view);
        let mut keep = |share: f64| generator.random_bool(share);
        let claims = Claims {
            category: scene.category,
            color: keep(0.55).then_some(scene.color),
            expression: scene.expression.filter(|_| keep(0.6)),
            accessory: view.accessory.filter(|_| keep(0.8)),
            background: keep(0.75).then_some(view.background),
            style: keep(0.55).then_some(view.style),
        };
        Self {
            text: sentence(&claims, |share| generator.random_bool(share)),
            claims,
        }
    }
}

fn sentence(claims: &Claims, mut vary: impl FnMut(f64) -> bool) -> String {
    let mut parts = Vec::new();
    if let Some(style) = claims.style {
        parts.push(
            if vary(0.25) {
                style.paraphrase()
            } else {
                style.phrase()
            }
            .to_string(),
        );
    }
    let noun = claims.category.word();
    let is_person = claims.category == Category::Person;
    parts.push(match (claims.expression, claims.color) {
        (Some(expression), _) => format!("a {} {noun}", expression.word()),
        (None, Some(color)) if !is_person => format!("{} {noun}", color.article_and_word()),
        (None, _) => format!("a {noun}"),
    });
    if let Some(color) = claims.color.filter(|_| is_person) {
        parts.push(format!("in {}", color.word()));
    }
    if let Some(accessory) = claims.accessory {
        let text = if vary(0.3) {
            accessory.paraphrase()
        } else {
            accessory.phrase()
        };
        parts.push(text.to_string());
    }
    if let Some(background) = claims.background {
        let text = if vary(0.3) {
            background.paraphrase()
        } else {
            background.phrase()
        };
        parts.push(text.to_string());
    }
    parts.join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use core_model::rng::rng;

    use super::super::{Face, Thing};
    use super::*;

    /// Removes one of the spellings from the front, with the space after it.
    fn take<T: Copy>(rest: &mut &str, spellings: &[(T, String)]) -> Option<T> {
        let (value, spelling) = spellings
            .iter()
            .filter(|(_, spelling)| {
                let tail = rest.strip_prefix(spelling.as_str());
                tail.is_some_and(|tail| tail.is_empty() || tail.starts_with(' '))
            })
            .max_by_key(|(_, spelling)| spelling.len())?;
        *rest = rest[spelling.len()..].trim_start();
        Some(*value)
    }

    fn spellings<T: Copy>(all: &[T], forms: [fn(T) -> String; 2]) -> Vec<(T, String)> {
        all.iter()
            .flat_map(|value| forms.map(|form| (*value, form(*value))))
            .collect()
    }

    /// Reads a caption by the grammar `[style] a [colour] noun [accessory] [background]`, of people
    /// `[style] a [expression] person [in colour] [accessory] [background]`.
    fn parse(text: &str) -> Option<Claims> {
        let mut rest = text;
        let style = take(
            &mut rest,
            &spellings(
                Style::ALL,
                [|s| s.phrase().into(), |s| s.paraphrase().into()],
            ),
        );
        let mut color = take(
            &mut rest,
            &spellings(
                Color::ALL,
                [Color::article_and_word, Color::article_and_word],
            ),
        );
        if color.is_none() {
            rest = rest.strip_prefix("a ")?;
        }
        let word: [fn(Expression) -> String; 2] = [|e| e.word().into(); 2];
        let expression = take(&mut rest, &spellings(Expression::ALL, word));
        let nouns = match expression {
            Some(_) => &[Category::Person],
            None => Category::ALL,
        };
        let category = take(
            &mut rest,
            &spellings(nouns, [|c| c.word().into(), |c| c.word().into()]),
        )?;
        if category == Category::Person {
            if color.is_some() {
                return None;
            }
            let worn: [fn(Color) -> String; 2] = [|c| format!("in {}", c.word()); 2];
            color = take(&mut rest, &spellings(Color::ALL, worn));
        }
        let accessory = take(
            &mut rest,
            &spellings(
                Accessory::ALL,
                [|a| a.phrase().into(), |a| a.paraphrase().into()],
            ),
        );
        let background = take(
            &mut rest,
            &spellings(
                Background::ALL,
                [|b| b.phrase().into(), |b| b.paraphrase().into()],
            ),
        );
        rest.is_empty().then_some(Claims {
            category,
            color,
            expression,
            accessory,
            background,
            style,
        })
    }

    fn scenes(count: u64) -> impl Iterator<Item = (Attributes, Caption)> {
        (0..count).map(|index| {
            let mut generator = rng(0, "caption", index);
            let identity = Identity::sample_for_training(&mut generator, index % 9 == 8);
            let view = View::sample(&mut generator, &identity);
            let caption = Caption::sample(&mut generator, &identity, &view);
            (Attributes::of(&identity, &view), caption)
        })
    }

    #[test]
    fn every_caption_follows_the_grammar_and_says_what_is_true() {
        for (scene, caption) in scenes(4000) {
            assert_eq!(
                parse(&caption.text),
                Some(caption.claims),
                "{}",
                caption.text
            );
            assert!(caption.claims.are_true_of(&scene), "{}", caption.text);
        }
    }

    #[test]
    fn a_full_caption_names_everything_that_has_a_name() {
        let mut generator = rng(0, "full caption", 0);
        let cat = Thing::sample_of(&mut generator, Category::Cat, Color::Orange).into();
        let person = Face::sample(&mut generator).into();
        let worn = Some(Accessory::Glasses);
        let mut view = View::arranged(&mut generator, Style::Sketch, Background::City, worn);
        view.pose.clothes = Color::Orange;
        view.pose.smile = -0.8;
        for (identity, text) in [
            (
                cat,
                "a sketch of an orange cat wearing glasses in the city at night",
            ),
            (
                person,
                "a sketch of a frowning person in orange wearing glasses in the city at night",
            ),
        ] {
            let caption = Caption::full(&identity, &view);
            assert_eq!(caption.text, text);
            assert_eq!(parse(&caption.text), Some(caption.claims));
        }
    }

    #[test]
    fn a_claim_about_another_scene_is_false() {
        let (scene, _) = scenes(9).last().unwrap();
        assert!(scene.expression.is_some());
        let silent = Claims {
            category: scene.category,
            color: None,
            expression: None,
            accessory: None,
            background: None,
            style: None,
        };
        assert!(silent.are_true_of(&scene));
        for color in Color::ALL {
            let claims = Claims {
                color: Some(*color),
                ..silent
            };
            assert_eq!(claims.are_true_of(&scene), *color == scene.color);
        }
        for expression in Expression::ALL {
            let claims = Claims {
                expression: Some(*expression),
                ..silent
            };
            let shown = scene.expression == Some(*expression);
            assert_eq!(claims.are_true_of(&scene), shown);
        }
        for accessory in Accessory::ALL {
            let claims = Claims {
                accessory: Some(*accessory),
                ..silent
            };
            let worn = scene.accessory == Some(*accessory);
            assert_eq!(claims.are_true_of(&scene), worn);
        }
    }

    #[test]
    fn the_forms_of_evaluation_prompts_occur_for_every_noun() {
        let captions: HashSet<String> = scenes(60_000).map(|(_, caption)| caption.text).collect();
        for prompt in [
            "a person in red",
            "a photo of a person in green",
            "a smiling person",
            "a photo of a frowning person",
            "a smiling person in the snow",
        ] {
            assert!(captions.contains(prompt), "{prompt}");
        }
        for noun in Category::ALL.iter().map(|category| category.word()) {
            for form in [
                "a {}",
                "a red {}",
                "a {} in the snow",
                "a {} in the forest",
                "a {} on the beach",
                "a photo of a {}",
                "a painting of a {}",
                "a photo of a {} in the desert",
            ] {
                let prompt = form.replace("{}", noun);
                let is_said = prompt != "a red person";
                assert_eq!(captions.contains(&prompt), is_said, "{prompt}");
            }
        }
        for animal in Category::ALL.iter().filter(|c| c.is_animate()) {
            for accessory in Accessory::ALL {
                let prompt = format!("a {} {}", animal.word(), accessory.phrase());
                assert!(captions.contains(&prompt), "{prompt}");
            }
        }
    }
}
