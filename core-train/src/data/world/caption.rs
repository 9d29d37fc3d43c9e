//! Captions: `[style] a [colour] noun [accessory] [background]`, parts dropped at random.

use rand::{Rng, RngExt};

use super::{Accessory, Attributes, Background, Category, Color, Identity, Style, View};

/// What a caption says about a scene; `None` where it is silent.
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
    /// Whether everything said holds for a scene.
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

/// A sentence and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// The sentence.
    pub text: String,
    /// Its content.
    pub claims: Claims,
}

impl Caption {
    /// Names everything that has a name.
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

    /// Leaves parts out and says some of the others in another way.
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
