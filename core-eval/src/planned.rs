//! The state of every cell of an experiment: what is done, what is left, and who works on it.

use serde::Serialize;

use crate::claims::claimed_by;
use crate::experiment::Experiment;
use crate::images::{claim_name, wanted};
use crate::plan::{Cell, PlannedRun};
use crate::trained::Trained;
use crate::training::{saved_steps, steps};

/// One variant, one concept and one seed, and how far it is.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedCell {
    /// The variant's name.
    pub variant: String,
    /// The concept's name.
    pub concept: String,
    /// The seed.
    pub seed: u64,
    /// The address of the run; none for the base model.
    pub address: Option<String>,
    /// How far the training is.
    pub state: State,
    /// The number of steps of the run that are logged so far.
    pub steps_done: usize,
    /// The number of all its steps.
    pub steps: usize,
    /// The number of images that are there.
    pub images_done: usize,
    /// The number of all images.
    pub images: usize,
    /// The process that trains the run or generates the images.
    pub worker: Option<String>,
    /// The estimated time that training still takes on this machine, for the first cell of a run.
    pub seconds: Option<f64>,
}

/// How far the training of a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// There is no run.
    NothingToTrain,
    /// The run is complete.
    Done,
    /// The run of an earlier cell, which is not complete.
    AsAbove,
    /// The run is not complete.
    ToTrain,
    /// The weights of the run were removed, and images of it are missing.
    ToTrainAgain,
}

/// The cells in order, without estimates.
pub fn planned_cells(
    experiment: &Experiment,
    cells: &[Cell],
    trained: &Trained<'_>,
) -> Vec<PlannedCell> {
    let results = trained.results();
    let mut listed: Vec<&str> = Vec::new();
    let mut planned = Vec::new();
    for cell in cells {
        let address = cell.run.as_ref().map(|run| run.address.as_str());
        let state = match &cell.run {
            None => State::NothingToTrain,
            Some(run) if trained.has(run) => State::Done,
            Some(run) if listed.contains(&run.address.as_str()) => State::AsAbove,
            Some(run) if trained.is_wanted_again(run) => State::ToTrainAgain,
            Some(_) => State::ToTrain,
        };
        listed.extend(address);
        let images = wanted(experiment, cell);
        let is_there = images
            .iter()
            .filter(|image| results.join(&image.file).exists());
        let claims = [
            address.map(String::from),
            Some(claim_name(experiment, cell)),
        ];
        let worker = claims
            .iter()
            .flatten()
            .find_map(|name| claimed_by(results, name));
        planned.push(PlannedCell {
            variant: experiment.variants[cell.variant].name.clone(),
            concept: experiment.concepts[cell.concept].name.clone(),
            seed: cell.seed,
            address: address.map(String::from),
            state,
            steps_done: cell.run.as_ref().map_or(0, |run| steps_done(run, trained)),
            steps: cell.run.as_ref().map_or(0, steps),
            images_done: is_there.count(),
            images: images.len(),
            worker: worker.map(|owner| owner.describe()),
            seconds: None,
        });
    }
    planned
}

fn steps_done(run: &PlannedRun, trained: &Trained<'_>) -> usize {
    match trained.has(run) {
        true => steps(run),
        false => saved_steps(run, trained.results()),
    }
}

impl PlannedCell {
    /// The state for readers.
    pub fn describe(&self) -> String {
        let address = self.address.as_deref().unwrap_or_default();
        let mut text = match self.state {
            State::NothingToTrain => "nothing to train".to_string(),
            State::Done => format!("run {address}, done"),
            State::AsAbove => format!("run {address}, as above"),
            State::ToTrain if self.steps_done > 0 => {
                let (done, steps) = (self.steps_done, self.steps);
                format!("run {address}, to train, {done} of {steps} steps done")
            }
            State::ToTrain => format!("run {address}, to train"),
            State::ToTrainAgain => {
                format!("run {address}, to train again, since its weights were removed")
            }
        };
        text += &format!("; {} of {} images", self.images_done, self.images);
        if let Some(worker) = &self.worker {
            text += &format!("; {worker} works on it");
        }
        text
    }
}
