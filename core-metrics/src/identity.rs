//! Identity: whether an image shows the person that the photos show, by the cosines of a network that was
//! trained to tell people apart: a ViT that reads whole images, or an iResNet (ArcFace) that reads aligned
//! faces. It runs where its folder is named.
//!
//! An image in which no face is found has no identity. How often that happens, and the mean in which such
//! images count as 0, stand beside the scores: leaving them out flatters a method that draws no face.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use core_model::iresnet::{IResNet, IResNetConfig};

use crate::{Compared, Definition, EncoderKind, FaceInput, ImageEncoder, Region, dino, iresnet};

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
    folder: "an identity encoder: a ViT as transformers writes it, which reads whole images, or an \
             iResNet of insightface, which reads aligned faces",
    required: false,
    face_input: Some(face_input),
    check,
    load,
};

fn face_input(folder: &Path) -> Result<FaceInput> {
    Ok(match IResNetConfig::is_in(folder)? {
        true => FaceInput::Aligned,
        false => FaceInput::WholeImage,
    })
}

fn check(folder: &Path) -> Result<()> {
    match face_input(folder)? {
        FaceInput::Aligned => IResNet::check(folder).map(drop)?,
        FaceInput::WholeImage => dino::check(folder).map(drop)?,
    }
    Ok(())
}

fn load(folder: &Path, device: &Device) -> Result<Box<dyn ImageEncoder>> {
    match face_input(folder)? {
        FaceInput::Aligned => iresnet::load(folder, device),
        FaceInput::WholeImage => dino::load(folder, device),
    }
}
