//! What is left of the markings that no caption names: `patterns RESULTS [KIND...]` classifies the images of an
//! experiment on concepts of the mini world with models/mini-pattern and prints, for every variant, the share whose
//! pattern is the concept's, and their sharpness relative to the photos. KIND chooses prompts; absent, plain ones.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement talks to its user"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_model::Network;
use core_model::device::parse_device;
use core_model::image_processor::channels_first;
use core_train::pretrain::{PatternClassifier, pixels, sharpness};
use core_train::world::{Pattern, WorldConcept};
use image::RgbImage;
use serde::Deserialize;

/// Images per forward pass.
const BATCH: usize = 64;

#[derive(Deserialize)]
struct Row {
    variant: String,
    concept: String,
    kind: String,
    image: PathBuf,
}

/// The images of one variant and concept, or the photos of a concept.
struct Images {
    images: Vec<RgbImage>,
    concept: &'static WorldConcept,
}

impl Images {
    fn right(&self, classifier: &PatternClassifier) -> f64 {
        let device = parse_device("cpu").unwrap();
        let batches = self.images.chunks(BATCH);
        let found: Vec<(Pattern, f32)> = batches
            .flat_map(|batch| {
                let values = batch.iter().flat_map(channels_first).collect();
                classifier.patterns(pixels(values, &device))
            })
            .collect();
        let right = found
            .iter()
            .filter(|(found, _)| *found == self.concept.pattern);
        right.count() as f64 / found.len() as f64
    }
}

fn concept(name: &str) -> &'static WorldConcept {
    let mut all = WorldConcept::ALL.iter();
    all.find(|concept| concept.name == name)
        .unwrap_or_else(|| panic!("{name}: not a concept of the mini world"))
}

fn read(results: &Path, kinds: &[String]) -> BTreeMap<(String, String), Images> {
    let mut found = BTreeMap::new();
    let mut table = csv::Reader::from_path(results.join("scores.csv")).unwrap();
    for row in table.deserialize() {
        let row: Row = row.unwrap();
        if !kinds.contains(&row.kind) {
            continue;
        }
        let image = image::open(results.join(&row.image)).unwrap().to_rgb8();
        let concept = concept(&row.concept);
        let images = found.entry((row.variant, row.concept));
        let images = images.or_insert_with(|| Images {
            images: Vec::new(),
            concept,
        });
        images.images.push(image);
    }
    found
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let results = PathBuf::from(arguments.next().expect("a results folder"));
    let mut kinds: Vec<String> = arguments.collect();
    if kinds.is_empty() {
        kinds.push("plain".to_string());
    }
    let device = parse_device("cpu").unwrap();
    let classifier = PatternClassifier::load(Path::new("models/mini-pattern"), &device).unwrap();
    let mut variants: BTreeMap<String, Vec<(String, f64, f64)>> = BTreeMap::new();
    for ((variant, name), images) in read(&results, &kinds) {
        let photos = images.concept.photos();
        let photos: Vec<RgbImage> = photos.into_iter().map(|photo| photo.image).collect();
        let relative = sharpness(&images.images) / sharpness(&photos);
        let row = (name, images.right(&classifier), relative);
        variants.entry(variant).or_default().push(row);
    }
    for (variant, rows) in variants {
        let count = rows.len() as f64;
        let [right, sharp] = [1, 2].map(|column| {
            let values = rows.iter().map(|row| [0.0, row.1, row.2][column]);
            values.sum::<f64>() / count
        });
        println!("{variant}: pattern right {right:.3}, sharpness {sharp:.3}");
        for (name, right, sharp) in rows {
            println!("    {name}: {right:.3}, {sharp:.3}");
        }
    }
}
