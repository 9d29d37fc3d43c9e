//! Which images a call draws: every prompt with every seed, as often as was asked for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_model::files::{read_to_string, write_atomically};

use super::GenerateArgs;

/// The list of images and their prompts, which `core-eval score --prompts` reads.
const LIST: &str = "prompts.csv";

/// The images of a call. They are numbered by prompt, then by seed, then by their number within the
/// seed.
pub(super) struct Plan {
    prompts: Vec<String>,
    /// Whether the prompts come from a file, so that the images need a list.
    listed: bool,
    /// None where the initial noise comes from a file.
    seeds: Vec<u64>,
    per_seed: usize,
}

impl Plan {
    /// # Errors
    /// A file of prompts that cannot be read or is empty, a seed that is given twice.
    pub(super) fn new(args: &GenerateArgs) -> Result<Self> {
        let prompts = match (&args.prompt, &args.prompts) {
            (Some(prompt), _) => vec![prompt.clone()],
            (None, Some(file)) => read_prompts(file)?,
            (None, None) => Vec::new(),
        };
        for (index, seed) in args.seed.iter().enumerate() {
            ensure!(
                !args.seed[..index].contains(seed),
                "--seed {seed} is given twice; its images would be the same, so give each seed once, and \
                 --num-images for several images of one seed"
            );
        }
        let from_file = args.init_latents.is_some();
        Ok(Self {
            prompts,
            listed: args.prompts.is_some(),
            seeds: if from_file {
                Vec::new()
            } else {
                args.seed.clone()
            },
            per_seed: args.num_images,
        })
    }

    pub(super) fn prompts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.prompts.iter().map(String::as_str)
    }

    /// The number of images of all prompts.
    pub(super) fn images(&self) -> usize {
        self.prompts.len() * self.images_per_prompt()
    }

    pub(super) fn images_per_prompt(&self) -> usize {
        self.seeds.len().max(1) * self.per_seed
    }

    /// The seed of the `image`-th image of a prompt, and its number among those of that seed.
    pub(super) fn seed_of(&self, image: usize) -> (Option<u64>, usize) {
        let seed = self.seeds.get(image / self.per_seed).copied();
        (seed, image % self.per_seed)
    }

    /// The images of an earlier call in the folder and their list, all of which this call replaces.
    ///
    /// # Errors
    /// One that it would leave, so that it would stand among the new ones.
    pub(super) fn earlier_files(&self, out: &Path) -> Result<Vec<PathBuf>> {
        let mut earlier = Vec::new();
        let Ok(entries) = fs::read_dir(out) else {
            return Ok(earlier);
        };
        for entry in entries {
            let path = entry.with_context(|| out.display().to_string())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name == LIST {
                ensure!(
                    self.listed,
                    "{}: is the list of an earlier call, which would not belong to the new images; name \
                     another folder with --out, or remove it",
                    path.display()
                );
                earlier.push(path);
                continue;
            }
            let Some(number) = number_of(&name) else {
                continue;
            };
            ensure!(
                number < self.images(),
                "{}: is an image of an earlier call, which would stand among the {} new ones; name \
                 another folder with --out, or remove it",
                path.display(),
                self.images()
            );
            earlier.push(path);
        }
        Ok(earlier)
    }

    /// Writes which image was drawn for which prompt, if there is a file of prompts.
    ///
    /// # Errors
    /// An unwritable folder.
    pub(super) fn write_list(&self, out: &Path) -> Result<()> {
        if !self.listed {
            return Ok(());
        }
        let path = out.join(LIST);
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["image", "prompt"])?;
        for image in 0..self.images() {
            let prompt = &self.prompts[image / self.images_per_prompt()];
            csv.write_record([&file_name(image), prompt])?;
        }
        let bytes = csv
            .into_inner()
            .with_context(|| path.display().to_string())?;
        Ok(write_atomically(&path, &bytes)?)
    }
}

/// The name of the file of an image.
pub(super) fn file_name(image: usize) -> String {
    format!("{image:05}.png")
}

/// The number of an image that an earlier call has drawn.
fn number_of(name: &str) -> Option<usize> {
    let digits = name.strip_suffix(".png")?;
    let is_number = digits.len() >= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

fn read_prompts(file: &Path) -> Result<Vec<String>> {
    let text = read_to_string(file)?;
    let lines = text.lines().map(str::trim);
    let prompts: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(String::from)
        .collect();
    ensure!(
        !prompts.is_empty(),
        "{}: holds no prompts; write one on each line",
        file.display()
    );
    Ok(prompts)
}
