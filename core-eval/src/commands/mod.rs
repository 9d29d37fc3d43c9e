//! The commands of `core-eval`, one file each.

pub mod doctor;
pub mod experiment;
pub mod plots;
pub mod precision;
pub mod score;

/// Writes a line of the report to standard output.
pub(crate) fn say(line: &str) {
    #[expect(clippy::print_stdout, reason = "the report is what the command is for")]
    {
        println!("{line}");
    }
}
