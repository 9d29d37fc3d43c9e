//! `core-train world`: renders scenes of the mini world to inspect the training data, and the photo
//! folders of the shipped concepts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use core_model::files::{write_atomically, write_png};
use core_model::rng::rng;
use image::RgbImage;

use super::{people, say};
use core_train::data::rendered::named_digest;
use core_train::progress::Progress;
use core_train::world::contact_sheet::contact_sheet;
use core_train::world::{
    Attributes, Background, Caption, Identity, Style, View, WorldConcept, photos_digest, render,
};
use rand_chacha::ChaCha8Rng;

/// Largest number of scenes on the contact sheet.
const ON_SHEET: usize = 96;

/// Scenes per row of the contact sheet.
const SHEET_COLUMNS: u32 = 12;

/// The turns in which the first scenes of every row of people show their person on plain ground.
const TURNS: [f32; 4] = [0.0, 0.35, -0.7, 1.0];

/// The header of `captions.csv`.
const COLUMNS: [&str; 10] = [
    "image",
    "mask",
    "caption",
    "category",
    "color",
    "accessory",
    "background",
    "style",
    "pattern",
    "expression",
];

/// Arguments of `core-train world`.
#[derive(Debug, Args)]
pub(crate) struct WorldArgs {
    /// The folder to write to.
    folder: PathBuf,
    /// Seed of the scenes.
    #[arg(long, default_value_t = 0, conflicts_with = "concepts")]
    seed: u64,
    /// Number of scenes to render.
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "concepts")]
    count: u32,
    /// Write the photo folders of the shipped concepts instead of scenes.
    #[arg(long)]
    concepts: bool,
    /// Show people instead of things: one person per row of the contact sheet, first from the front, half
    /// turned and from the side, then in eight views drawn at random.
    #[arg(long, conflicts_with = "concepts")]
    people: bool,
}

/// Renders scenes or concepts, writes them, and prints what was written.
///
/// # Errors
/// A folder that cannot be created or written to.
pub(crate) fn run(args: &WorldArgs) -> Result<()> {
    let folder = &args.folder;
    let written = if args.concepts {
        people::check(&folder.join("people"))?;
        write_concepts(folder)?;
        let people = people::write(&folder.join("people"))?;
        let count = WorldConcept::ALL.len() + people;
        format!("{count} concepts in {}", folder.display())
    } else {
        let draw = if args.people { person } else { thing };
        write_scenes(folder, args.seed, args.count, draw)?;
        let sheet = folder.join("sheet.png");
        format!(
            "{} scenes; {} shows the first of them",
            args.count,
            sheet.display()
        )
    };
    say(&written);
    Ok(())
}

/// The subject and the view of the scene with a seed and a number, and the generator that drew them.
type Draw = fn(u64, u32) -> (ChaCha8Rng, Identity, View);

fn thing(seed: u64, number: u32) -> (ChaCha8Rng, Identity, View) {
    let mut generator = rng(seed, "world", number.into());
    let identity = Identity::sample_for_training(&mut generator, false);
    let view = View::sample(&mut generator, &identity);
    (generator, identity, view)
}

fn person(seed: u64, number: u32) -> (ChaCha8Rng, Identity, View) {
    let (row, column) = (number / SHEET_COLUMNS, number % SHEET_COLUMNS);
    let identity = Identity::sample_for_training(&mut rng(seed, "world person", row.into()), true);
    let mut generator = rng(seed, "world view", number.into());
    let mut view = View::sample(&mut generator, &identity);
    if let Some(turn) = TURNS.get(column as usize) {
        view.pose.yaw = *turn;
        (view.style, view.background, view.accessory) = (Style::Photo, Background::Plain, None);
    }
    (generator, identity, view)
}

/// Writes scenes as pretraining uses them: `00000.png` and so on, `masks/`, `captions.csv` with the
/// true attributes, and `sheet.png`, a contact sheet of the first ones. Files with the same names are
/// replaced.
///
/// # Errors
/// A folder that cannot be created or written to.
pub(crate) fn write_scenes(folder: &Path, seed: u64, count: u32, draw: Draw) -> Result<()> {
    let masks = folder.join("masks");
    make_folder(&masks)?;
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(COLUMNS)?;
    let mut shown = Vec::new();
    let mut progress = Progress::new("scenes", 0, count.into());
    for number in 0..count {
        let (mut generator, identity, view) = draw(seed, number);
        let caption = Caption::sample(&mut generator, &identity, &view).text;
        let scene = Attributes::of(&identity, &view);
        let pattern = match &identity {
            Identity::Thing(thing) => thing.pattern.word(),
            Identity::Person(_) => "",
        };
        let rendering = render(&identity, &view);
        let name = format!("{number:05}.png");
        write_png(&folder.join(&name), &rendering.image)?;
        write_png(&masks.join(&name), &rendering.mask)?;
        table.write_record([
            name.as_str(),
            &format!("masks/{name}"),
            &caption,
            scene.category.word(),
            scene.color.word(),
            scene.accessory.map_or("", |accessory| accessory.word()),
            scene.background.word(),
            scene.style.word(),
            pattern,
            scene.expression.map_or("", |expression| expression.word()),
        ])?;
        if shown.len() < ON_SHEET {
            shown.push(rendering.image);
        }
        progress.advance("");
    }
    progress.finish();
    write_png(
        &folder.join("sheet.png"),
        &contact_sheet(&shown, SHEET_COLUMNS),
    )?;
    write_atomically(&folder.join("captions.csv"), &table.into_inner()?)?;
    Ok(())
}

/// Writes one folder per concept with `0.png` and so on and `concept.toml`; concepts for choosing
/// settings go to `development/`, those of Table 3 to `table3/`. Files that this version rendered are
/// replaced.
///
/// # Errors
/// A folder that cannot be created or written to; photos of another version of the renderer, before anything
/// is written.
pub(crate) fn write_concepts(folder: &Path) -> Result<()> {
    let mut rendered = Vec::with_capacity(WorldConcept::ALL.len());
    for concept in WorldConcept::ALL {
        let home = folder.join(concept.folder());
        let photos: Vec<RgbImage> = concept.photos().into_iter().map(|p| p.image).collect();
        refuse_other_version(&home, &photos_digest(&photos))?;
        rendered.push((concept, home, photos));
    }
    for (concept, home, photos) in rendered {
        make_folder(&home)?;
        for (number, photo) in photos.iter().enumerate() {
            write_png(&home.join(format!("{number}.png")), photo)?;
        }
        write_atomically(&home.join("concept.toml"), concept.toml(&photos).as_bytes())?;
    }
    Ok(())
}

/// Refuses a folder whose photos another version of the renderer made: what was learned from them would not
/// be about the new ones.
pub(super) fn refuse_other_version(folder: &Path, digest: &str) -> Result<()> {
    let found = named_digest(folder)?;
    if let Some(found) = found.filter(|found| found != digest) {
        bail!(
            "{}: another version of the renderer, or another kind of machine, made the photos there \
             (`rendered` in its concept.toml is {found}, this version's is {digest}). Nothing was written; \
             name another folder, or remove this one to render it again",
            folder.display()
        );
    }
    Ok(())
}

pub(super) fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot create the folder {}; name one that can be written to",
            folder.display()
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn scenes_come_with_masks_a_table_and_a_contact_sheet() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("new/world");
        write_scenes(&folder, 5, 3, thing).unwrap();
        let images = ["00000.png", "00001.png", "00002.png"];
        assert_eq!(names(&folder.join("masks")), images);
        let others = ["captions.csv", "masks", "sheet.png"];
        assert_eq!(names(&folder), [&images[..], &others[..]].concat());

        let mut table = csv::Reader::from_path(folder.join("captions.csv")).unwrap();
        assert_eq!(table.headers().unwrap(), &COLUMNS[..]);
        let rows: Vec<_> = table.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 3);
        for (number, row) in (0..).zip(&rows) {
            let (_, identity, view) = thing(5, number);
            let scene = render(&identity, &view);
            let noun = identity.category().word();
            assert_eq!(&row[3], noun);
            assert!(row[2].contains(noun), "{}", &row[2]);
            let image = image::open(folder.join(&row[0])).unwrap();
            assert_eq!(image.to_rgb8(), scene.image);
            let mask = image::open(folder.join(&row[1])).unwrap();
            assert_eq!(mask.to_luma8(), scene.mask);
        }
    }

    #[test]
    fn a_row_of_people_shows_one_person_first_in_four_turns_on_plain_ground() {
        let home = tempfile::tempdir().unwrap();
        write_scenes(home.path(), 5, 14, person).unwrap();
        let mut table = csv::Reader::from_path(home.path().join("captions.csv")).unwrap();
        let rows: Vec<_> = table.records().map(Result::unwrap).collect();
        assert!(
            rows.iter()
                .all(|row| &row[3] == "person" && row[8].is_empty())
        );
        for row in rows[..4].iter().chain(&rows[12..]) {
            assert_eq!(
                [&row[5], &row[6], &row[7]],
                ["", "plain background", "photo"]
            );
        }
        let scenes: Vec<_> = (0..14).map(|number| person(5, number)).collect();
        let yaws: Vec<f32> = scenes[..4].iter().map(|scene| scene.2.pose.yaw).collect();
        assert_eq!(yaws, TURNS);
        assert!(scenes[..12].iter().all(|scene| scene.1 == scenes[0].1));
        assert_ne!(scenes[12].1, scenes[0].1);
    }

    #[test]
    fn the_same_seed_writes_the_same_bytes_and_another_seed_does_not() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, seed| {
            let folder = home.path().join(name);
            write_scenes(&folder, seed, 2, thing).unwrap();
            ["00001.png", "sheet.png", "captions.csv"]
                .map(|file| std::fs::read(folder.join(file)).unwrap())
        };
        let first = write("a", 1);
        assert_eq!(first, write("b", 1));
        assert_ne!(first, write("c", 2));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let message = format!("{:#}", write_scenes(&file, 0, 1, thing).unwrap_err());
        assert!(message.contains("file/masks"), "{message}");
        assert!(message.contains("can be written to"), "{message}");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "in the way");
    }

    #[test]
    fn the_shipped_concept_folders_are_what_the_renderer_draws() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/concepts");
        for concept in WorldConcept::ALL {
            let folder = shipped.join(concept.folder());
            let expected = ["0.png", "1.png", "2.png", "3.png", "4.png", "concept.toml"];
            assert_eq!(names(&folder), expected);
            let mut photos = Vec::new();
            for (number, photo) in concept.photos().iter().enumerate() {
                let file = folder.join(format!("{number}.png"));
                let image = image::open(&file).unwrap().to_rgb8();
                // Sine and cosine come from the platform, so the last level may differ.
                let farthest = image
                    .iter()
                    .zip(photo.image.iter())
                    .map(|(a, b)| a.abs_diff(*b))
                    .max();
                assert!(farthest <= Some(2), "{}: {farthest:?}", file.display());
                photos.push(image);
            }
            let toml = std::fs::read_to_string(folder.join("concept.toml")).unwrap();
            assert_eq!(toml, concept.toml(&photos));
        }
    }

    #[test]
    fn concepts_are_written_over_those_of_this_version_and_never_over_those_of_another() {
        let home = tempfile::tempdir().unwrap();
        write_concepts(home.path()).unwrap();
        let all: Vec<PathBuf> = WorldConcept::ALL
            .iter()
            .map(|concept| home.path().join(concept.folder()))
            .collect();
        let photo = all[0].join("0.png");
        let bytes = std::fs::read(&photo).unwrap();
        std::fs::remove_file(&photo).unwrap();
        write_concepts(home.path()).unwrap();
        assert_eq!(std::fs::read(&photo).unwrap(), bytes);

        // As another version of the renderer would have left the last concept.
        let toml = all[all.len() - 1].join("concept.toml");
        let text = std::fs::read_to_string(&toml).unwrap();
        let at = text.find("rendered = ").unwrap();
        std::fs::write(&toml, format!("{}rendered = \"0123\"\n", &text[..at])).unwrap();
        std::fs::remove_file(&photo).unwrap();
        let message = write_concepts(home.path()).unwrap_err().to_string();
        let folder = all[all.len() - 1].display().to_string();
        for part in [folder.as_str(), "0123", "name another folder"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!photo.exists(), "nothing is written");
        // A file without the key is one of a user or of an older version.
        std::fs::write(&toml, &text[..at]).unwrap();
        write_concepts(home.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&toml).unwrap(), text);
    }
}
