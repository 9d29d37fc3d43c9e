//! `core-eval study make`: from a results folder to a page, its key and its rules.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_model::files::{hex, write_atomically};
use indexmap::IndexSet;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::material::Material;
use super::page::{Pages, Texts, encode, paragraphs};
use super::planner::plan;
use super::settings::{Settings, completion_code};
use super::trials::{
    Plan, REPEATS, Wanted, catch_count, comparisons, has_catch_trials, neighbours,
};
use super::{Exclusions, KEY, Question, SETTINGS, key, sample_size};

/// What a study is made of.
#[derive(Debug, Clone)]
pub struct Make {
    /// The results folder.
    pub results: PathBuf,
    /// The variants to compare, two or more.
    pub compare: Vec<String>,
    /// The questions.
    pub questions: Vec<Question>,
    /// For how many people a design is made.
    pub people: usize,
    /// How many pairs each of them compares.
    pub per_person: usize,
    /// For how many pairs there is one catch trial.
    pub pairs_per_catch: usize,
    /// The seed of all random choices.
    pub seed: u64,
    /// Folder with a folder of photos for each concept.
    pub photos: Option<PathBuf>,
    /// Text that people agree to.
    pub consent: Option<PathBuf>,
    /// Text that says whom to write to.
    pub contact: Option<PathBuf>,
    /// The largest side of images, in pixels.
    pub side: u32,
    /// Whether every person has a page of their own.
    pub page_per_person: bool,
    /// Whose votes are left out.
    pub exclusions: Exclusions,
    /// The folder to write.
    pub out: PathBuf,
}

/// What people agree to where no other text is given.
const CONSENT: [&str; 3] = [
    "You will see pairs of images made by computer programs, beside photos of a thing and a sentence, and \
     say which image fits better. There is no right or wrong: we ask what you see.",
    "Taking part is voluntary, and you can stop at any time. Your answers, the time that each took and the size \
     of your window are recorded under a random code. Your name is not asked, and nothing is sent anywhere: \
     your answers stay in this browser until you save them as a file and hand it in.",
    "By starting you agree that these answers are analysed and published.",
];

/// Whom to ask where no other text is given.
const CONTACT: [&str; 1] = [
    "Please hand the file to the person who asked you to take part, and ask them if \
                             you have questions.",
];

impl Make {
    /// Writes the folder of the study and returns what to know about it.
    ///
    /// # Errors
    /// A folder that exists, results that cannot be shown, impossible sizes, texts that name a variant,
    /// an unwritable folder.
    pub fn run(&self) -> Result<String> {
        self.check()?;
        let material = Material::read(&self.results, &self.compare, self.photos.as_deref())?;
        let wanted = Wanted {
            people: self.people,
            per_person: self.per_person,
            pairs_per_catch: self.pairs_per_catch,
            seed: self.seed,
        };
        let plan = plan(&material, wanted)?;
        let texts = self.texts()?;
        let origins = plan.images.par_iter();
        let images = origins.map(|(_, origin)| encode(origin, self.side));
        let images: Vec<Vec<u8>> = images.collect::<Result<_>>()?;
        let key = key::to_csv(&key::rows(&plan, &material))?;
        let settings = self.settings(&plan, &images).named(&key)?;
        let pages = Pages {
            plan: &plan,
            material: &material,
            texts: &texts,
            images: &images,
        };
        let files = self.write(&pages, &settings, &key)?;
        Ok(self.report(&plan, &material, &settings, &files))
    }

    fn check(&self) -> Result<()> {
        ensure!(
            !self.out.exists(),
            "{}: exists already; a study whose key is overwritten cannot be analysed any more, so name another \
             folder with --out",
            self.out.display()
        );
        for (flag, value) in [
            ("--people", self.people),
            ("--per-person", self.per_person),
            ("--pairs-per-catch", self.pairs_per_catch),
            ("--side", self.side as usize),
        ] {
            ensure!(value > 0, "{flag} is 0; expected 1 or more");
        }
        let Exclusions {
            catch_right_at_least,
            median_seconds_at_least,
            one_side_at_most,
        } = self.exclusions;
        for (flag, value, most) in [
            ("--catch-right", catch_right_at_least, 1.0),
            ("--median-seconds", median_seconds_at_least, f64::MAX),
            ("--one-side", one_side_at_most, 1.0),
        ] {
            ensure!(
                (0.0..=most).contains(&value),
                "{flag} is {value}; expected a number from 0{}",
                if most > 1.0 { "" } else { " to 1" }
            );
        }
        Ok(())
    }

    fn texts(&self) -> Result<Texts> {
        let read = |file: &Option<PathBuf>, usual: &[&str]| match file {
            Some(file) => paragraphs(file, &self.compare),
            None => Ok(usual.iter().map(|text| (*text).to_string()).collect()),
        };
        Ok(Texts {
            consent: read(&self.consent, &CONSENT)?,
            contact: read(&self.contact, &CONTACT)?,
        })
    }

    fn settings(&self, plan: &Plan, images: &[Vec<u8>]) -> Settings {
        let catch_trials = match has_catch_trials(plan) {
            true => catch_count(self.per_person, self.pairs_per_catch),
            false => 0,
        };
        let repeats = REPEATS.min(self.per_person);
        let mut hasher = Sha256::new();
        images.iter().for_each(|image| hasher.update(image));
        let questions: IndexSet<Question> = self.questions.iter().copied().collect();
        Settings {
            study: String::new(),
            version: 0,
            seed: self.seed,
            variants: self.compare.clone(),
            questions: questions.into_iter().collect(),
            people: self.people,
            per_person: self.per_person,
            trials: self.per_person + repeats + catch_trials,
            catch_trials,
            repeats,
            images: hex(&hasher.finalize()),
            exclusions: self.exclusions,
        }
    }

    /// Writes beside the folder and gives it its name in the end. Returns the pages with their sizes.
    fn write(
        &self,
        pages: &Pages<'_>,
        settings: &Settings,
        key: &str,
    ) -> Result<Vec<(String, usize)>> {
        let parent = match self.out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        let scratch = tempfile::tempdir_in(parent).with_context(|| parent.display().to_string())?;
        let folder = scratch.path().join("study");
        std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let all: Vec<usize> = (1..=self.people).collect();
        let groups: Vec<(String, &[usize])> = match self.page_per_person {
            true => {
                let each = all.chunks(1);
                each.map(|person| (format!("person-{}.html", person[0]), person))
                    .collect()
            }
            false => vec![("index.html".to_string(), &all[..])],
        };
        let mut files = Vec::new();
        for (name, people) in groups {
            let html = pages.html(settings, people)?;
            write_atomically(&folder.join(&name), html.as_bytes())?;
            files.push((name, html.len()));
        }
        write_atomically(&folder.join(KEY), key.as_bytes())?;
        write_atomically(&folder.join(SETTINGS), settings.to_toml()?.as_bytes())?;
        std::fs::rename(&folder, &self.out).with_context(|| self.out.display().to_string())?;
        Ok(files)
    }

    /// What to do with the files, and what the study is.
    fn report(
        &self,
        plan: &Plan,
        material: &Material,
        settings: &Settings,
        files: &[(String, usize)],
    ) -> String {
        let comparisons = comparisons(settings.variants.len()).len();
        let per_comparison = self.per_person as f64 / comparisons as f64;
        let votes = settings.votes_per_person();
        let mut text = format!(
            "{}.\n{}: keep it back until everybody has voted.\n\n\
             Study {}: {comparisons} comparisons, {} people with {} trials each ({} pairs, {} catch trials, {} \
             repetitions; {} practice trials before), {:.0} votes per comparison and question. Completion code of \
             a whole set of {votes} votes: {}\n\n",
            self.pages(files),
            self.out.join(KEY).display(),
            settings.study,
            self.people,
            settings.trials,
            self.per_person,
            settings.catch_trials,
            settings.repeats,
            plan.practice.len(),
            per_comparison * self.people as f64,
            completion_code(&settings.study, votes),
        );
        if settings.catch_trials == 0 {
            text += "There are no catch trials: they need images of the untuned model or a second concept.\n\n";
        }
        let neighbours = neighbours(plan, material);
        if neighbours > 0 {
            text += &format!(
                "{neighbours} neighbouring trials share their concept, because one concept has more than half of \
                 the trials.\n\n"
            );
        }
        text + &sample_size::table(per_comparison)
    }

    /// Which page is for whom.
    fn pages(&self, files: &[(String, usize)]) -> String {
        let (folder, people) = (self.out.display(), self.people);
        let size = files.iter().map(|(_, size)| *size).max().unwrap_or(0) as f64 / 1e6;
        match self.page_per_person {
            false => format!(
                "{folder}/index.html ({size:.1} MB): give it to {people} people, the n-th one as index.html?p=n, \
                 or without a number, which draws one"
            ),
            true => format!(
                "{folder}/person-1.html to person-{people}.html (at most {size:.1} MB): give one to each person"
            ),
        }
    }
}
