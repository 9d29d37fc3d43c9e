//! Progress of long work: a bar with rate and time left on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is written when standard error is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(15);

/// Counts units of work on standard error.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    done: u64,
    started_at: u64,
    start: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `what` is the kind of work, as in "embedding" or "images"; `done` units of `total` were
    /// there before.
    pub fn new(what: &str, done: u64, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total)
                .with_position(done)
                .with_prefix(what.to_string());
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}",
            ) {
                bar.set_style(style);
            }
            bar.reset_eta();
            bar
        });
        let now = Instant::now();
        Self {
            what: what.to_string(),
            total,
            done,
            started_at: done,
            start: now,
            last_line: now,
            bar,
        }
    }

    /// One unit more is done; `message` is what a reader wants to see beside the count.
    pub fn advance(&mut self, message: &str) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.set_message(message.to_string());
            bar.set_position(self.done);
        } else if self.last_line.elapsed() >= PLAIN_INTERVAL || self.done == self.total {
            self.last_line = Instant::now();
            let seconds = self.start.elapsed().as_secs_f64().max(1e-9);
            let rate = (self.done - self.started_at) as f64 / seconds;
            let left = (self.total - self.done.min(self.total)) as f64 / rate.max(1e-9);
            eprintln!(
                "{} {}/{} {rate:.2}/s {left:.0} s left {message}",
                self.what, self.done, self.total
            );
        }
    }

    /// Ends the bar and leaves its last state on the screen.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
