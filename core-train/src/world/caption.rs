//! Captions: `[style] a [colour] noun [accessory] [background]`, with parts left out at random.

use rand::{Rng, RngExt};

use super::{Accessory, Attributes, Background, Category, Color, Identity, Style, View};

/// What a caption says about a scene; `None` for what it leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The noun.
    pub category: Category,
    /// The colour word.
    pub color: Option<Color>,
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
        let claims = Claims {
            category: identity.category,
            color: Some(identity.color),
            accessory: view.accessory,
            background: Some(view.background),
            style: Some(view.style),
        };
        Self {
            text: sentence(&claims, |_| false),
            claims,
        }
    }

    /// A caption that leaves out some parts and paraphrases some of the others, at random.
    pub fn sample(generator: &mut impl Rng, identity: &Identity, view: &View) -> Self {
        let mut keep = |share: f64| generator.random_bool(share);
        let claims = Claims {
            category: identity.category,
            color: keep(0.55).then_some(identity.color),
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
    parts.push(match claims.color {
        Some(color) => format!("{} {noun}", color.article_and_word()),
        None => format!("a {noun}"),
    });
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

    /// Reads a caption by the grammar `[style] a [colour] noun [accessory] [background]`.
    fn parse(text: &str) -> Option<Claims> {
        let mut rest = text;
        let style = take(
            &mut rest,
            &spellings(
                Style::ALL,
                [|s| s.phrase().into(), |s| s.paraphrase().into()],
            ),
        );
        let color = take(
            &mut rest,
            &spellings(
                Color::ALL,
                [Color::article_and_word, Color::article_and_word],
            ),
        );
        if color.is_none() {
            rest = rest.strip_prefix("a ")?;
        }
        let category = take(
            &mut rest,
            &spellings(Category::ALL, [|c| c.word().into(), |c| c.word().into()]),
        )?;
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
            accessory,
            background,
            style,
        })
    }

    fn scenes(count: u64) -> impl Iterator<Item = (Attributes, Caption)> {
        (0..count).map(|index| {
            let mut generator = rng(0, "caption", index);
            let identity = Identity::sample(&mut generator);
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
        let cat = Identity::sample_of(&mut generator, Category::Cat, Color::Orange);
        let worn = Some(Accessory::Glasses);
        let view = View::arranged(&mut generator, Style::Sketch, Background::City, worn);
        let caption = Caption::full(&cat, &view);
        assert_eq!(
            caption.text,
            "a sketch of an orange cat wearing glasses in the city at night"
        );
        assert_eq!(parse(&caption.text), Some(caption.claims));
    }

    #[test]
    fn a_claim_about_another_scene_is_false() {
        let (scene, _) = scenes(1).next().unwrap();
        let silent = Claims {
            category: scene.category,
            color: None,
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
                assert!(captions.contains(&prompt), "{prompt}");
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
