//! The table of all concepts: what each is in words. Everything else about them is drawn once from
//! their names.

use super::concepts::{ConceptSet, WorldConcept};
use super::{Category, Color, Pattern};

macro_rules! concepts {
    ($($name:literal => $pattern:ident $color:ident $category:ident, $set:ident;)+) => {
        &[$(WorldConcept {
            name: $name,
            set: ConceptSet::$set,
            category: Category::$category,
            color: Color::$color,
            pattern: Pattern::$pattern,
        }),+]
    };
}

impl WorldConcept {
    /// Every concept: one per category, two for choosing settings, three per category for Table 3, and
    /// two more for choosing settings.
    ///
    /// Cats, birds and houses have fewer than three combinations that are reserved for concepts and that
    /// no concept had before Table 3. Some of their things therefore share their words with another
    /// thing and differ from it in all that no word names.
    pub const ALL: &[Self] = concepts! {
        "spotted-dog" => Spots Blue Dog, Shipped;
        "patched-cat" => Patches Orange Cat, Shipped;
        "two-coloured-rabbit" => Half Purple Rabbit, Shipped;
        "spotted-bird" => Spots Yellow Bird, Shipped;
        "striped-cup" => Stripes White Cup, Shipped;
        "striped-car" => Stripes Pink Car, Shipped;
        "striped-house" => Stripes Blue House, Shipped;
        "spotted-clock" => Spots Blue Clock, Shipped;

        "patched-dog" => Patches White Dog, Development;
        "spotted-cup" => Spots Red Cup, Development;

        "patched-yellow-dog" => Patches Yellow Dog, Table3;
        "two-coloured-yellow-dog" => Half Yellow Dog, Table3;
        "plain-green-dog" => None Green Dog, Table3;
        "patched-red-cat" => Patches Red Cat, Table3;
        "patched-pink-cat" => Patches Pink Cat, Table3;
        "patched-orange-cat" => Patches Orange Cat, Table3;
        "plain-yellow-rabbit" => None Yellow Rabbit, Table3;
        "plain-blue-rabbit" => None Blue Rabbit, Table3;
        "two-coloured-pink-rabbit" => Half Pink Rabbit, Table3;
        "plain-red-bird" => None Red Bird, Table3;
        "another-plain-red-bird" => None Red Bird, Table3;
        "spotted-yellow-bird" => Spots Yellow Bird, Table3;
        "striped-orange-cup" => Stripes Orange Cup, Table3;
        "bellied-yellow-cup" => Belly Yellow Cup, Table3;
        "patched-blue-cup" => Patches Blue Cup, Table3;
        "bellied-green-car" => Belly Green Car, Table3;
        "striped-blue-car" => Stripes Blue Car, Table3;
        "patched-purple-car" => Patches Purple Car, Table3;
        "bellied-orange-house" => Belly Orange House, Table3;
        "another-bellied-orange-house" => Belly Orange House, Table3;
        "striped-blue-house" => Stripes Blue House, Table3;
        "plain-orange-clock" => None Orange Clock, Table3;
        "bellied-yellow-clock" => Belly Yellow Clock, Table3;
        "plain-pink-clock" => None Pink Clock, Table3;

        "spotted-pink-dog" => Spots Pink Dog, Development;
        "spotted-pink-car" => Spots Pink Car, Development;
    };
}
