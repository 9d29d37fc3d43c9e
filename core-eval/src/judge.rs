//! A command that judges images: one line of JSON per image goes in, one number per image comes out.
//!
//! The command reads its standard input to the end. Each line is an object with `image`, `concept`,
//! `text` and `photos`; the answer to each is one line with one finite number, in the same order.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use core_model::files::{hex, sha256};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The column of the answers.
pub const COLUMN: &str = "judge";

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 4096;

/// A question to the command.
#[derive(Debug, Clone, Serialize)]
pub struct Question<'a> {
    /// The file of the image.
    pub image: &'a Path,
    /// The concept; empty when all images are of one.
    pub concept: &'a str,
    /// The text that the image is compared with.
    pub text: &'a str,
    /// The photos of the concept.
    pub photos: &'a [PathBuf],
}

/// A command with its arguments.
#[derive(Debug, Clone)]
pub struct JudgeCommand {
    text: String,
    words: Vec<String>,
    /// How long the next answer may take.
    wait: Duration,
}

impl JudgeCommand {
    /// A command as it is typed; no shell is involved, so quotes separate words and nothing else is
    /// interpreted. The next answer may take `wait`.
    ///
    /// # Errors
    /// An empty command, an open quote, a program that is not there.
    pub fn new(text: &str, wait: Duration) -> Result<Self> {
        let words = shlex::split(text)
            .with_context(|| format!("judge command `{text}`: a quote is open; close it"))?;
        let program = words.first().context("the judge command is empty")?;
        ensure!(
            is_there(program),
            "judge command `{text}`: there is no program `{program}`; give its path, or install it"
        );
        Ok(Self {
            text: text.to_string(),
            words,
            wait,
        })
    }

    /// The command and the SHA-256 of its text and of the files that it names.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn provenance(&self) -> Result<Value> {
        let mut files = Map::new();
        for word in &self.words {
            let path = Path::new(word);
            if path.is_file() {
                files.insert(word.clone(), json!(sha256(path)?));
            }
        }
        Ok(json!({
            "command": self.text,
            "sha256": hex(&Sha256::digest(&self.text)),
            "files": files,
        }))
    }

    /// The answers to the questions in their order, and what ended them early; the answers before it
    /// are kept.
    pub fn ask(&self, questions: &[Question<'_>]) -> (Vec<f64>, Result<()>) {
        let mut answers = Vec::with_capacity(questions.len());
        let outcome = self.ask_into(questions, &mut answers);
        let outcome = outcome.with_context(|| format!("judge command `{}`", self.text));
        (answers, outcome)
    }

    fn ask_into(&self, questions: &[Question<'_>], answers: &mut Vec<f64>) -> Result<()> {
        let mut lines = String::new();
        for question in questions {
            lines += &serde_json::to_string(question)?;
            lines.push('\n');
        }
        let mut command = Command::new(&self.words[0]);
        let command = command.args(&self.words[1..]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot be started")?;
        if let Some(mut input) = child.stdin.take() {
            // A command that ends early closes its input, which its missing answers will tell.
            std::thread::spawn(move || input.write_all(lines.as_bytes()));
        }
        let output = child.stdout.take().context("its output cannot be read")?;
        let outcome = self.collect(questions, &mut child, &answered(output), answers);
        // It has said everything, or nothing more is wanted of it. A command that is gone already
        // cannot be ended again.
        let _ = child.kill();
        let _ = child.wait();
        outcome
    }

    fn collect(
        &self,
        questions: &[Question<'_>],
        child: &mut Child,
        lines: &Receiver<std::io::Result<String>>,
        answers: &mut Vec<f64>,
    ) -> Result<()> {
        let seconds = self.wait.as_secs_f64();
        for (index, question) in questions.iter().enumerate() {
            let (line, total, image) = (index + 1, questions.len(), question.image.display());
            match lines.recv_timeout(self.wait) {
                Ok(text) => {
                    let text = text.with_context(|| format!("line {line}"))?;
                    answers.push(number(&text).with_context(|| {
                        format!(
                            "line {line} is {:?}; expected one finite number, the score of {image}",
                            shown(&text)
                        )
                    })?);
                }
                Err(RecvTimeoutError::Timeout) => bail!(
                    "no answer for {seconds} seconds; waited for line {line} of {total}, the score of \
                     {image}. Print every answer at once (flush), or give it more time with \
                     --judge-seconds"
                ),
                Err(RecvTimeoutError::Disconnected) => bail!(
                    "ended ({}) after {index} of {total} answers; line {line}, the score of {image}, \
                     is missing",
                    child
                        .wait()
                        .map_or("killed".into(), |status| status.to_string())
                ),
            }
        }
        match lines.recv_timeout(self.wait) {
            Ok(text) => bail!(
                "more answers than the {} images: line {} is {:?}",
                questions.len(),
                questions.len() + 1,
                shown(&text.unwrap_or_default())
            ),
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(
                    "the judge command answered everything and did not end; it was ended"
                );
            }
            Err(RecvTimeoutError::Disconnected) => {}
        }
        Ok(())
    }
}

/// The lines of an output as they come.
fn answered(output: ChildStdout) -> Receiver<std::io::Result<String>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut bytes = Vec::new();
            let read = (&mut output).take(LONGEST).read_until(b'\n', &mut bytes);
            let line = match read {
                Ok(0) => break,
                Ok(_) => Ok(String::from_utf8_lossy(&bytes).trim().to_string()),
                Err(error) => Err(error),
            };
            let ends = line.is_err();
            if send.send(line).is_err() || ends {
                break;
            }
        }
    });
    receive
}

/// As much of an answer as a message shows.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Whether a program can be started: a path to a file, or a name in one of the folders of programs.
fn is_there(program: &str) -> bool {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return path.is_file();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let endings = ["", std::env::consts::EXE_SUFFIX];
    std::env::split_paths(&folders).any(|folder| {
        endings
            .iter()
            .any(|end| folder.join(format!("{program}{end}")).is_file())
    })
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a script answers about three images, and the message of its failure.
    fn ask(script: &str) -> (Vec<f64>, String) {
        let command = format!("sh -c '{script}'");
        let judge = JudgeCommand::new(&command, Duration::from_millis(1500)).unwrap();
        let images = ["0.png", "1.png", "2.png"].map(PathBuf::from);
        let question = |image| Question {
            image,
            concept: "dog",
            text: "a dog",
            photos: &images,
        };
        let questions: Vec<Question<'_>> = images.iter().map(|i| question(i)).collect();
        let (answers, outcome) = judge.ask(&questions);
        let message = outcome.err().map(|error| format!("{error:#}"));
        (answers, message.unwrap_or_default())
    }

    #[test]
    fn every_line_of_json_gets_the_number_of_its_line() {
        let script = r#"while read -r line; do case "$line" in *:\"1.png\"*) echo 0.5;; *) echo 2;; esac; done"#;
        assert_eq!(ask(script), (vec![2.0, 0.5, 2.0], String::new()));
    }

    #[test]
    fn a_command_that_ends_early_is_named_with_the_missing_line_and_its_answers_are_kept() {
        let (answers, message) = ask("echo 1; exit 3");
        assert_eq!(answers, [1.0]);
        for part in [
            "sh -c",
            "exit status: 3",
            "1 of 3 answers",
            "line 2",
            "1.png",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn junk_is_quoted_with_its_line() {
        for junk in ["hello", "NaN", "{\\\"score\\\": 1}", ""] {
            let (answers, message) = ask(&format!("echo 1; echo \"{junk}\"; cat > /dev/null"));
            assert_eq!(answers, [1.0], "{junk}");
            assert!(message.contains("line 2 is \""), "{message}");
        }
        let (_, message) = ask("head -c 100000 /dev/zero");
        assert!(message.contains("line 1 is"), "{message}");
    }

    #[test]
    fn a_command_that_hangs_is_ended_after_its_time() {
        let start = std::time::Instant::now();
        let (answers, message) = ask("echo 1; exec sleep 60");
        assert_eq!(answers, [1.0]);
        assert!(message.contains("no answer for 1.5 seconds"), "{message}");
        assert!(message.contains("line 2 of 3"), "{message}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn more_answers_than_images_are_refused() {
        let (answers, message) = ask("echo 1; echo 2; echo 3; echo 4");
        assert_eq!(answers, [1.0, 2.0, 3.0]);
        assert!(message.contains("line 4 is \"4\""), "{message}");
    }

    #[test]
    fn a_command_that_cannot_be_started_is_refused_before_any_question() {
        let new = |text: &str| JudgeCommand::new(text, Duration::from_secs(1));
        for (text, part) in [
            ("", "is empty"),
            ("python 'judge.py", "quote is open"),
            ("no-such-program-7 x", "no program `no-such-program-7`"),
            ("./absent/judge x", "no program `./absent/judge`"),
        ] {
            let message = new(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn the_command_is_kept_with_digests_of_its_text_and_its_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let path = file.path().display().to_string();
        let text = format!("sh {path}");
        let judge = JudgeCommand::new(&text, Duration::from_secs(1)).unwrap();
        let kept = judge.provenance().unwrap();
        assert_eq!(kept["command"], text);
        assert_eq!(kept["sha256"], hex(&Sha256::digest(&text)));
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(kept["files"][&path], abc);
    }
}
