//! A network in a folder: `config.json` beside weights, as diffusers or transformers writes it.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::class::{Class, DIFFUSERS_WEIGHTS, TRANSFORMERS_WEIGHTS};

use crate::checkpoint::{Checkpoint, canonical, save_module};
use crate::config::{read_config, write_config};
use crate::error::Result;
use crate::params::{Extension, ParamBuilder, ParamNames, Weights};
use crate::precision::Precision;

/// A network that a folder holds. It says how its class is called, how keys are spelled and how it
/// is built; reading and writing are the same for all.
pub trait Network: Module + Sized {
    /// The content of `config.json`.
    type Config: Serialize + DeserializeOwned;

    /// The class that writes such folders.
    fn class(config: &Self::Config) -> Class;

    /// A network below `pb`.
    ///
    /// # Errors
    /// Impossible sizes, tensors that do not fit the config.
    fn new(config: &Self::Config, pb: &ParamBuilder) -> Result<Self>;

    /// The facts of the checkpoint.
    fn config(&self) -> &Self::Config;

    /// The key of every parameter.
    fn names(&self) -> &ParamNames;

    /// Reads `config.json`; keys that the network does not know are left to other tools.
    ///
    /// # Errors
    /// An absent file, values of other types or that this crate does not compute.
    fn read_config(path: &Path) -> Result<Self::Config> {
        read_config(path)
    }

    /// The spelling of a file's key that the network asks for; `None` for what is not a weight.
    fn canonical_key(key: &str) -> Option<String> {
        canonical(key)
    }

    /// The spelling that all versions of other tools read.
    fn written_key(key: &str) -> String {
        key.to_string()
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// An absent or damaged file, an unsupported config, tensors that do not fit it.
    fn load(folder: &Path, device: &Device) -> Result<Self> {
        Self::load_weights(folder, Weights::default(), device)
    }

    /// The same with the weights of a variant, such as `fp16`, or in another number format.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_weights(folder: &Path, weights: Weights<'_>, device: &Device) -> Result<Self> {
        let config = Self::read_config(&folder.join("config.json"))?;
        let name = Self::class(&config).weights();
        let file = Checkpoint::open_weights(folder, name, weights.variant, Self::canonical_key)?;
        let pb = ParamBuilder::from_checkpoint_in(file, weights.precision, device);
        Self::new(&config, &pb)
    }

    /// Refuses what [`load`](Self::load) would refuse, by configuration and header alone: weights
    /// that are missing, misshapen or too many are found, and no values are read.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for numbers that are damaged.
    fn check(folder: &Path) -> Result<Self::Config> {
        let config = Self::read_config(&folder.join("config.json"))?;
        let name = Self::class(&config).weights();
        let file = Checkpoint::open_weights(folder, name, None, Self::canonical_key)?;
        Self::new(&config, &ParamBuilder::from_header(file))?;
        Ok(config)
    }

    /// A fresh network.
    ///
    /// # Errors
    /// Impossible sizes.
    fn init(config: &Self::Config, seed: u64, device: &Device) -> Result<Self> {
        Self::new(config, &ParamBuilder::random(seed, device))
    }

    /// The same network with further parameters beside the weights of its layers, all frozen; those
    /// that it has already stay as they are, and `extensions` names them too.
    ///
    /// # Errors
    /// A layer that does not exist or cannot be extended.
    fn extended(&self, extensions: Vec<Extension>) -> Result<Self> {
        let pb = ParamBuilder::of_network(self, self.names(), extensions);
        Self::new(self.config(), &pb)
    }

    /// The same network with more rows, [rows, width], at the end of one of its tables; `config` says how many there
    /// are now.
    ///
    /// # Errors
    /// A table that does not exist, rows of another width, a config that does not fit.
    fn with_more_rows(&self, table: &str, rows: Tensor<2>, config: &Self::Config) -> Result<Self> {
        let pb = ParamBuilder::with_more_rows(self, self.names(), table, rows)?;
        Self::new(config, &pb)
    }

    /// The keys and shapes that a network of this config has, without making it.
    ///
    /// # Errors
    /// Impossible sizes.
    fn names_of(config: &Self::Config) -> Result<ParamNames> {
        let network = Self::new(config, &ParamBuilder::shapes())?;
        Ok(network.names().clone())
    }

    /// Writes the folder; what was added to layers is left out.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    fn save(&self, folder: &Path, precision: Precision) -> Result<()> {
        let class = Self::class(self.config());
        write_config(&folder.join("config.json"), class, self.config())?;
        let names = self.names().renamed(Self::written_key);
        save_module(&folder.join(class.weights()), self, &names, precision)
    }
}
