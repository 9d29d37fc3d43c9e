//! Things and people that are almost the same: one property that no caption names is changed,
//! everything else stays. An image encoder that scores identity has to tell them apart.

use rand::{Rng, RngExt};

use super::{Beard, Face, Hair, Identity, Pattern, Rendering, Thing};

/// Least change of every proportion in [`Counterfactual::OtherProportions`]. With it the body is
/// about 5 of 64 pixels wider or narrower, which one sees when both are shown in one view; at half
/// of it many pairs look the same.
const LEAST_CHANGE: f32 = 0.12;

/// Least sum of the differences of red, green and blue in [`Counterfactual::OtherColors`]; dark
/// brown and black, which hardly anybody tells apart in a small image, differ by 90.
const LEAST_COLOR_CHANGE: u16 = 120;

/// The property in which a counterfactual differs from the thing or person. A person's markings are
/// the beard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counterfactual {
    /// Its markings are gone.
    WithoutPattern,
    /// It has other markings, or markings where it had none.
    OtherPattern,
    /// Its markings and details have other colours; of a person hair, eyes and lips.
    OtherColors,
    /// Every proportion is clearly different; those of a face are drawn again.
    OtherProportions,
    /// It has another shape (ears, beak, roof) and other eyes; a person has another hair style and
    /// another nose.
    OtherShape,
}

impl Counterfactual {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::WithoutPattern,
        Self::OtherPattern,
        Self::OtherColors,
        Self::OtherProportions,
        Self::OtherShape,
    ];

    /// Its name in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::WithoutPattern => "without_pattern",
            Self::OtherPattern => "other_pattern",
            Self::OtherColors => "other_colors",
            Self::OtherProportions => "other_proportions",
            Self::OtherShape => "other_shape",
        }
    }

    /// The thing or person with this property changed; `None` for one that does not have it.
    pub fn of(self, identity: &Identity, generator: &mut impl Rng) -> Option<Identity> {
        match identity {
            Identity::Thing(thing) => self.of_thing(thing, generator).map(Identity::from),
            Identity::Person(face) => self.of_person(face, generator).map(Identity::from),
        }
    }

    /// The thing with this property changed; `None` for a thing that does not have it.
    pub fn of_thing(self, thing: &Thing, generator: &mut impl Rng) -> Option<Thing> {
        let mut other = thing.clone();
        match self {
            Self::WithoutPattern if thing.pattern == Pattern::None => return None,
            Self::WithoutPattern => other.pattern = Pattern::None,
            Self::OtherPattern => {
                let new = drawn(thing, generator, |new| {
                    ![thing.pattern, Pattern::None].contains(&new.pattern)
                });
                other.pattern = new.pattern;
                other.pattern_seed = new.pattern_seed;
            }
            Self::OtherColors => {
                let new = drawn(thing, generator, |new| {
                    differ(new.second, thing.second) && differ(new.third, thing.third)
                });
                other.second = new.second;
                other.third = new.third;
            }
            Self::OtherProportions => {
                for (index, proportion) in other.proportions.iter_mut().enumerate() {
                    let old = *proportion;
                    let new = drawn(thing, generator, |new| {
                        (new.proportions[index] - old).abs() >= LEAST_CHANGE
                    });
                    *proportion = new.proportions[index];
                }
            }
            Self::OtherShape => {
                other.variant = (thing.variant + generator.random_range(1..3)) % 3;
                other.eyes = (thing.eyes + generator.random_range(1..3)) % 3;
            }
        }
        Some(other)
    }

    fn of_person(self, face: &Face, generator: &mut impl Rng) -> Option<Face> {
        let mut other = face.clone();
        match self {
            Self::WithoutPattern if face.beard == Beard::None => return None,
            Self::WithoutPattern => other.beard = Beard::None,
            Self::OtherPattern => loop {
                other.beard = Face::sample(generator).beard;
                if ![face.beard, Beard::None].contains(&other.beard) {
                    break;
                }
            },
            Self::OtherColors => loop {
                let new = Face::sample(generator);
                (other.hair_color, other.iris, other.lips) = (new.hair_color, new.iris, new.lips);
                let [before, after] = [face, &other].map(|f| [f.hair_color, f.iris, f.lips]);
                if before
                    .iter()
                    .zip(after)
                    .all(|(before, after)| *before != after)
                {
                    break;
                }
            },
            Self::OtherProportions => {
                let new = Face::sample_like(generator, face);
                other = Face {
                    iris: face.iris,
                    nose: face.nose,
                    lips: face.lips,
                    beard: face.beard,
                    mark: face.mark,
                    mark_at: face.mark_at,
                    ..new
                };
            }
            Self::OtherShape => {
                let hair = (face.hair.index() + generator.random_range(1..Hair::ALL.len()))
                    % Hair::ALL.len();
                other.hair = Hair::ALL[hair];
                other.nose = (face.nose + generator.random_range(1..3)) % 3;
            }
        }
        Some(other)
    }
}

/// A thing with the same words of which the condition holds.
fn drawn(thing: &Thing, generator: &mut impl Rng, is_right: impl Fn(&Thing) -> bool) -> Thing {
    loop {
        let new = Thing::sample_like(generator, thing);
        if is_right(&new) {
            return new;
        }
    }
}

fn differ(a: [u8; 3], b: [u8; 3]) -> bool {
    let changes = a.iter().zip(b).map(|(a, b)| u16::from(a.abs_diff(b)));
    changes.sum::<u16>() >= LEAST_COLOR_CHANGE
}

/// How much of a subject one sees to differ between two renderings in one view: the share of its
/// pixels in which red, green or blue differs by more than 40 of 255.
pub fn visible_difference(a: &Rendering, b: &Rendering) -> f64 {
    let masks = a.mask.iter().zip(b.mask.iter());
    let subject = masks.filter(|(a, b)| **a > 127 || **b > 127).count();
    let colors = a.image.pixels().zip(b.image.pixels());
    let changed = colors.filter(|(a, b)| {
        let channels = a.0.iter().zip(b.0);
        channels.into_iter().any(|(a, b)| a.abs_diff(b) > 40)
    });
    changed.count() as f64 / subject.max(1) as f64
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core_model::rng::rng;

    use super::*;
    use crate::world::{View, render};

    fn things(count: u64) -> impl Iterator<Item = (Thing, View)> {
        (0..count).map(|number| {
            let mut generator = rng(5, "counterfactual", number);
            let thing = Thing::sample(&mut generator);
            let view = View::sample(&mut generator, &thing.clone().into());
            (thing, view)
        })
    }

    #[test]
    fn each_kind_changes_its_own_property_and_nothing_else() {
        let mut generator = rng(6, "counterfactual", 0);
        for (thing, _) in things(200) {
            for kind in Counterfactual::ALL {
                let Some(other) = kind.of_thing(&thing, &mut generator) else {
                    assert_eq!(
                        (kind, thing.pattern),
                        (Counterfactual::WithoutPattern, Pattern::None)
                    );
                    continue;
                };
                let mut restored = other.clone();
                match kind {
                    Counterfactual::WithoutPattern => {
                        assert_eq!(other.pattern, Pattern::None);
                        restored.pattern = thing.pattern;
                    }
                    Counterfactual::OtherPattern => {
                        assert_ne!(other.pattern, thing.pattern);
                        assert_ne!(other.pattern, Pattern::None);
                        restored.pattern = thing.pattern;
                        restored.pattern_seed = thing.pattern_seed;
                    }
                    Counterfactual::OtherColors => {
                        assert_ne!(other.second, thing.second);
                        assert_ne!(other.third, thing.third);
                        restored.second = thing.second;
                        restored.third = thing.third;
                    }
                    Counterfactual::OtherProportions => {
                        for (new, old) in other.proportions.iter().zip(thing.proportions) {
                            assert!((new - old).abs() >= LEAST_CHANGE);
                            assert!((0.82..1.18).contains(new));
                        }
                        restored.proportions = thing.proportions;
                    }
                    Counterfactual::OtherShape => {
                        assert_ne!(other.variant, thing.variant);
                        assert_ne!(other.eyes, thing.eyes);
                        assert!(other.variant < 3 && other.eyes < 3);
                        restored.variant = thing.variant;
                        restored.eyes = thing.eyes;
                    }
                }
                assert_eq!(restored, thing, "{kind:?}");
            }
        }
    }

    #[test]
    fn counterfactuals_of_people_differ_from_them_and_keep_the_skin() {
        let mut generator = rng(8, "counterfactual", 0);
        for _ in 0..50 {
            let face = Face::sample(&mut generator);
            for kind in Counterfactual::ALL {
                let Some(other) = kind.of_person(&face, &mut generator) else {
                    assert_eq!(
                        (kind, face.beard),
                        (Counterfactual::WithoutPattern, Beard::None)
                    );
                    continue;
                };
                assert_ne!(other, face, "{kind:?}");
                assert_eq!((other.skin, other.mark), (face.skin, face.mark));
                let is_hair = kind == Counterfactual::OtherShape;
                assert_eq!(other.hair != face.hair, is_hair);
            }
        }
    }

    #[test]
    fn one_sees_the_difference_in_nearly_every_view_and_other_proportions_in_every_one() {
        let mut generator = rng(7, "counterfactual", 0);
        for kind in Counterfactual::ALL {
            let differences = things(150).filter_map(|(thing, view)| {
                let other = kind.of_thing(&thing, &mut generator)?;
                let [a, b] = [thing, other].map(|thing| render(&thing.into(), &view));
                Some(visible_difference(&a, &b))
            });
            let mut differences: Vec<f64> = differences.collect();
            differences.sort_by(f64::total_cmp);
            let (least, median) = (differences[0], differences[differences.len() / 2]);
            assert!(median > 0.08, "{kind:?} {median}");
            if kind == Counterfactual::OtherProportions {
                assert!(least > 0.2, "{least}");
            }
        }
    }
}
