//! Identity: whether an image shows the person that the photos show, by the cosines of a network that was
//! trained to tell people apart. It runs where its folder is named.
//!
//! An image in which no person is found has no identity. How often that happens, and the mean in which such
//! images count as 0, stand beside the scores: leaving them out flatters a method that draws no face.

use crate::dino::{check, load};
use crate::{Compared, Definition, EncoderKind, Region};

/// The metric.
pub(crate) struct Identity;

impl Definition for Identity {
    fn title(&self) -> &'static str {
        "identity"
    }

    fn encoder(&self) -> &'static EncoderKind {
        &IDENTITY
    }

    fn compared_with(&self) -> Compared {
        Compared::Photos
    }

    fn region(&self) -> Region {
        Region::Face
    }

    fn tells_instances_apart(&self) -> bool {
        true
    }
}

static IDENTITY: EncoderKind = EncoderKind {
    key: "identity",
    title: "the identity encoder",
    folder: "an identity encoder: a ViT as transformers writes it, which reads whole images",
    required: false,
    check: |folder| check(folder).map(drop),
    load,
};
