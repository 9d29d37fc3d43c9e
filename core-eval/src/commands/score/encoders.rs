//! A flag for the folder of every image encoder, from the table of metrics.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use core_eval::metrics::{EncoderFolders, EncoderKind};

/// The folders of image encoders by flag.
#[derive(Debug, Clone, Default)]
pub(super) struct EncoderArgs(pub(super) EncoderFolders);

impl Args for EncoderArgs {
    fn augment_args(command: Command) -> Command {
        let kinds = EncoderKind::all().into_iter();
        kinds.fold(command, |command, kind| {
            let help = format!("Folder of {}, or repository of the hub", kind.folder);
            let flag = Arg::new(kind.key).long(kind.key).value_name("DIR");
            let flag = flag.value_parser(value_parser!(PathBuf));
            command.arg(flag.required(kind.required).help(help))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for EncoderArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut folders = Self::default();
        folders.update_from_arg_matches(matches)?;
        Ok(folders)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for kind in EncoderKind::all() {
            if let Some(folder) = matches.get_one::<PathBuf>(kind.key) {
                self.0.set(kind, folder.clone());
            }
        }
        Ok(())
    }
}
