//! About which concept, prompt and noise the catch trials are.

use core_model::rng::rng;
use rand::seq::SliceRandom;

use super::material::{Material, Noise};

/// The prompts and noises of each concept in a random order, without end.
pub(super) struct CatchPlaces {
    by_concept: Vec<Vec<(usize, Noise)>>,
    turns: Vec<usize>,
}

impl CatchPlaces {
    /// None where there is no image of which everybody can tell that it does not show the concept: no
    /// images of the base model, and no second concept.
    pub(super) fn new(material: &Material, seed: u64) -> Option<Self> {
        if material.untuned.is_none() && material.concepts.len() < 2 {
            return None;
        }
        let mut by_concept = vec![Vec::new(); material.concepts.len()];
        for (index, prompt) in material.prompts.iter().enumerate() {
            let places = prompt.images.iter().map(|noise| (index, *noise));
            by_concept[prompt.concept].extend(places);
        }
        let mut generator = rng(seed, "study catch trials", 0);
        by_concept
            .iter_mut()
            .for_each(|of| of.shuffle(&mut generator));
        let turns = vec![0; by_concept.len()];
        Some(Self { by_concept, turns })
    }

    /// The next prompt of a concept and its noise.
    pub(super) fn next(&mut self, concept: usize) -> (usize, Noise) {
        let of = &self.by_concept[concept];
        let turn = &mut self.turns[concept];
        *turn += 1;
        of[(*turn - 1) % of.len()]
    }
}
