//! What a program says of itself to shells and to `man`: completions, manual pages and exit codes. Both
//! programs have the same two commands for them.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use core_model::Error as ModelError;
use core_model::files::write_atomically;

use crate::error::Result;

/// The end of `--help` and of the manual page.
pub const EXIT_CODES: &str = "\
Exit codes: 0 if everything asked for was done; 1 for an error, which standard error names; 2 for wrong \
arguments; 130 after Ctrl-C (SIGINT) and 143 after SIGTERM, both of which leave a run so that it can be \
continued.";

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script that completes the arguments of a program. A closed pipe is no failure.
    pub fn run(&self, mut program: Command) {
        let mut script = Vec::new();
        let name = program.get_name().to_string();
        clap_complete::generate(self.shell, &mut program, name, &mut script);
        let _ = std::io::stdout().lock().write_all(&script);
    }
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder to write to, as ~/.local/share/man/man1; made when absent
    folder: PathBuf,
}

impl ManArgs {
    /// Writes the manual page of a program and one for each of its commands, and says how many they are.
    ///
    /// # Errors
    /// A folder that cannot be made or written to.
    pub fn run(&self, program: Command) -> Result<()> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let mut pages = Vec::new();
        add_pages(program, &mut pages).map_err(ModelError::io(folder))?;
        for (name, page) in &pages {
            write_atomically(&folder.join(name), page)?;
        }
        let _ = writeln!(std::io::stdout().lock(), "{} manual pages", pages.len());
        Ok(())
    }
}

/// Adds the page of a command and those of the commands below it, each with the name of its file.
fn add_pages(command: Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let below: Vec<Command> = command.get_subcommands().cloned().collect();
    let page = Man::new(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    pages.push((page.get_filename(), text));
    below
        .into_iter()
        .try_for_each(|below| add_pages(below, pages))
}
