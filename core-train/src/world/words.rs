//! The named attributes of a scene and the words for them.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$item_doc])* $item),+ }

        impl $name {
            /// Every value, in the order of their indices.
            pub const ALL: &'static [Self] = &[$(Self::$item),+];

            /// The word for it in captions.
            pub fn word(self) -> &'static str {
                match self { $(Self::$item => $word),+ }
            }

            /// Its index in [`ALL`](Self::ALL).
            pub fn index(self) -> usize {
                self as usize
            }
        }
    };
    // A table with one more column: whether a property holds for each value.
    ($(#[$doc:meta])* $name:ident, $(#[$column_doc:meta])* $column:ident {
        $($(#[$item_doc:meta])* $item:ident => $word:literal, $value:literal);+ $(;)?
    }) => {
        words!($(#[$doc])* $name { $($(#[$item_doc])* $item => $word),+ });

        impl $name {
            $(#[$column_doc])*
            pub fn $column(self) -> bool {
                match self { $(Self::$item => $value),+ }
            }
        }
    };
}

words!(
    /// What the thing is.
    Category,
    /// Whether it is an animal or a person, who may wear things.
    is_animate {
        /// Floppy ears and a snout.
        Dog => "dog", true;
        /// Pointed ears and whiskers.
        Cat => "cat", true;
        /// Long ears.
        Rabbit => "rabbit", true;
        /// A beak and a wing.
        Bird => "bird", true;
        /// With a handle.
        Cup => "cup", false;
        /// Seen from the side.
        Car => "car", false;
        /// With a roof and a door.
        House => "house", false;
        /// An alarm clock.
        Clock => "clock", false;
        /// Head and shoulders.
        Person => "person", true;
    }
);

impl Category {
    /// The nouns of things: all but the person.
    pub const THINGS: &'static [Self] = Self::ALL.split_at(Self::Person as usize).0;
}

words!(
    /// The main colour of a thing, or of a person's clothes.
    Color {
        /// Red.
        Red => "red",
        /// Orange.
        Orange => "orange",
        /// Yellow.
        Yellow => "yellow",
        /// Green.
        Green => "green",
        /// Blue.
        Blue => "blue",
        /// Purple.
        Purple => "purple",
        /// Pink.
        Pink => "pink",
        /// White.
        White => "white",
    }
);

words!(
    /// What an animal or a person wears.
    Accessory {
        /// A tall hat.
        Hat => "hat",
        /// A striped scarf.
        Scarf => "scarf",
        /// Round glasses.
        Glasses => "glasses",
    }
);

words!(
    /// The place that the thing or the person is in.
    Background {
        /// One soft colour.
        Plain => "plain background",
        /// Dunes, a cactus.
        Desert => "desert",
        /// Sea and sand.
        Beach => "beach",
        /// White ground, falling flakes.
        Snow => "snow",
        /// Dark trunks and leaves.
        Forest => "forest",
        /// Lit windows under a dark sky.
        City => "city at night",
        /// Grass and flowers.
        Meadow => "meadow",
        /// A wall, a floor, a window.
        Room => "room",
        /// Stars and a planet.
        Space => "space",
    }
);

words!(
    /// The medium of the image.
    Style {
        /// Shaded, with light from one side.
        Photo => "photo",
        /// Flat with dark outlines.
        Cartoon => "cartoon",
        /// Pencil on paper.
        Sketch => "sketch",
        /// Brush strokes.
        Painting => "painting",
    }
);

words!(
    /// The markings, which no caption names.
    Pattern {
        /// Of one colour.
        None => "plain",
        /// Round spots.
        Spots => "spotted",
        /// Parallel stripes.
        Stripes => "striped",
        /// A few large patches.
        Patches => "patched",
        /// Two halves.
        Half => "two-coloured",
        /// A light belly.
        Belly => "light-bellied",
    }
);

words!(
    /// What a face shows.
    Expression {
        /// The corners of the mouth point up.
        Smiling => "smiling",
        /// The corners of the mouth and the brows point down.
        Frowning => "frowning",
    }
);

words!(
    /// A person's hair style, which no caption names.
    Hair {
        /// None.
        Bald => "bald",
        /// Short.
        Cropped => "cropped",
        /// Combed to one side.
        Parted => "parted",
        /// Round curls.
        Curled => "curled",
        /// To the chin, with a fringe.
        Bob => "bob",
        /// To the shoulders, parted in the middle.
        Long => "long",
        /// A knot on top.
        Bun => "bun",
        /// Spikes from front to back.
        Crest => "crest",
    }
);

words!(
    /// A person's beard, which no caption names.
    Beard {
        /// Shaved.
        None => "shaved",
        /// Above the mouth.
        Moustache => "moustache",
        /// At the chin.
        Goatee => "goatee",
        /// Over chin and cheeks, with a moustache.
        Full => "full",
    }
);

words!(
    /// What else a person's skin shows, which no caption names.
    Mark {
        /// Nothing.
        None => "none",
        /// A dark dot.
        Mole => "mole",
        /// Dots over cheeks and nose.
        Freckles => "freckles",
        /// A light line.
        Scar => "scar",
    }
);

impl Color {
    /// "a red", "an orange".
    pub fn article_and_word(self) -> String {
        let article = if self == Self::Orange { "an" } else { "a" };
        format!("{article} {}", self.word())
    }

    /// Red, green, blue, 0 to 255.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [214, 40, 40],
            Self::Orange => [247, 127, 20],
            Self::Yellow => [250, 212, 40],
            Self::Green => [56, 158, 62],
            Self::Blue => [44, 98, 214],
            Self::Purple => [126, 58, 180],
            Self::Pink => [250, 150, 190],
            Self::White => [244, 242, 236],
        }
    }
}

impl Accessory {
    /// The end of "a dog ...".
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Hat => "wearing a hat",
            Self::Scarf => "wearing a scarf",
            Self::Glasses => "wearing glasses",
        }
    }

    /// Another way to say it.
    pub fn paraphrase(self) -> &'static str {
        match self {
            Self::Hat => "with a hat",
            Self::Scarf => "with a scarf",
            Self::Glasses => "with glasses",
        }
    }
}

impl Background {
    /// The end of "a dog ...".
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Plain => "on a plain background",
            Self::Desert => "in the desert",
            Self::Beach => "on the beach",
            Self::Snow => "in the snow",
            Self::Forest => "in the forest",
            Self::City => "in the city at night",
            Self::Meadow => "in a meadow",
            Self::Room => "in a room",
            Self::Space => "in space",
        }
    }

    /// Another way to say it.
    pub fn paraphrase(self) -> &'static str {
        match self {
            Self::Plain => "in front of a plain background",
            Self::Desert => "in a desert",
            Self::Beach => "at the beach",
            Self::Snow => "on snow",
            Self::Forest => "in a forest",
            Self::City => "in a city at night",
            Self::Meadow => "in the meadow",
            Self::Room => "in the room",
            Self::Space => "in outer space",
        }
    }
}

impl Style {
    /// The beginning of "... a dog".
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Photo => "a photo of",
            Self::Cartoon => "a cartoon of",
            Self::Sketch => "a sketch of",
            Self::Painting => "a painting of",
        }
    }

    /// Another way to say it.
    pub fn paraphrase(self) -> &'static str {
        match self {
            Self::Photo => "a photograph of",
            Self::Cartoon => "a cartoon drawing of",
            Self::Sketch => "a pencil sketch of",
            Self::Painting => "an oil painting of",
        }
    }
}
