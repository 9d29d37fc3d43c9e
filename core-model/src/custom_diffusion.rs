//! Files of Custom Diffusion (Kumari et al., CVPR 2023): the trained cross-attention weights of a U-Net,
//! without the rest of it.
//!
//! | written by | file | keys |
//! |---|---|---|
//! | diffusers, this project | `pytorch_custom_diffusion_weights.safetensors` or `.bin` | `<block>.attn2.processor.to_k_custom_diffusion.weight`, `to_v` and, where they were trained, `to_q`, `to_out_custom_diffusion.0.weight` and `.bias`: whole new matrices |
//! | the authors | `delta.bin` | below `unet.` the U-Net's own keys; whole new matrices, or `u` and `v`, whose product is added; below `modifier_token.` the concepts |
//!
//! A file is read as a whole or not at all: a matrix that only some layers have, or one that the U-Net
//! does not have, is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{FloatDType, Tensor, TensorData};

use crate::checkpoint::{Checkpoint, TensorToWrite, save_tensors};
use crate::error::{Error, Result};
use crate::files::{MODEL_CARD, NewFolder, write_atomically};
use crate::learned_embedding::LearnedEmbedding;
use crate::network::Network;
use crate::pipeline::StableDiffusionPipeline;
use crate::precision::Precision;
use crate::unet::UNet2DConditionModel;

/// The file that diffusers writes, without its ending.
const FILE: &str = "pytorch_custom_diffusion_weights";

/// Cross-attention weights in the U-Net and what they are called in diffusers' files.
const WEIGHTS: [(&str, &str); 5] = [
    ("to_k.weight", "to_k_custom_diffusion.weight"),
    ("to_v.weight", "to_v_custom_diffusion.weight"),
    ("to_q.weight", "to_q_custom_diffusion.weight"),
    ("to_out.0.weight", "to_out_custom_diffusion.0.weight"),
    ("to_out.0.bias", "to_out_custom_diffusion.0.bias"),
];

/// How many of [`WEIGHTS`] are keys and values.
const KEYS_AND_VALUES: usize = 2;

/// The weights in a file: itself, or that of diffusers in a folder that is no folder of a U-Net.
pub fn find(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_path_buf());
    }
    if path.join("config.json").exists() {
        return None;
    }
    let files = ["safetensors", "bin"].map(|ending| path.join(format!("{FILE}.{ending}")));
    files.into_iter().find(|file| file.is_file())
}

/// Which weights of a U-Net such a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Keys and values of cross-attention.
    KeysAndValues,
    /// All of cross-attention.
    All,
}

impl Held {
    /// What must be held for a weight, given its key; `None` for one that no such file can hold.
    pub fn for_weight(key: &str) -> Option<Self> {
        let (_, number) = weight(key)?;
        Some(match number < KEYS_AND_VALUES {
            true => Self::KeysAndValues,
            false => Self::All,
        })
    }
}

/// Block and number in [`WEIGHTS`] of a cross-attention weight.
fn weight(key: &str) -> Option<(&str, usize)> {
    WEIGHTS.iter().enumerate().find_map(|(number, (name, _))| {
        let block = key.strip_suffix(name)?.strip_suffix(".attn2.")?;
        Some((block, number))
    })
}

/// The U-Net's key for one of a file; `None` for what is no weight of it.
fn unet_key(key: &str) -> Option<String> {
    if key.starts_with("modifier_token.") || key.ends_with(".processor") {
        return None;
    }
    let (block, name) = match key.split_once(".attn2.processor.") {
        Some(parts) => parts,
        None => return Some(key.strip_prefix("unet.").unwrap_or(key).to_string()),
    };
    let known = WEIGHTS.iter().find(|(_, other)| *other == name);
    let name = known.map_or(name, |(own, _)| own);
    Some(format!("{block}.attn2.{name}"))
}

/// What a file says about one weight.
enum Change {
    /// Its new values.
    New(Vec<f32>),
    /// [out, r] and [r, in], whose product is added.
    Added(Vec<f32>, Vec<f32>, [usize; 3]),
}

impl StableDiffusionPipeline {
    /// The same with the cross-attention weights of a file.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is damaged or incomplete, holds anything else, or belongs to
    /// another model; [`Error::Shape`].
    pub fn with_custom_diffusion(mut self, path: &Path) -> Result<Self> {
        let file = Checkpoint::open(path, unet_key)?;
        let unet = self.model.unet().clone();
        let mut changes = changes(&file, &unet)?;
        let names = unet.names().clone();
        let keys: BTreeSet<String> = changes.keys().cloned().collect();
        let unet = names.map(
            unet,
            |key, _| keys.contains(key),
            |key, old| match changes.remove(key) {
                Some(change) => change.applied(old),
                None => old,
            },
        );
        self.model = self.model.with_unet(unet);
        Ok(self)
    }
}

impl Change {
    /// The weight's new values, flattened, in float32.
    fn applied(self, old: Tensor<1>) -> Tensor<1> {
        let device = old.device();
        match self {
            Self::New(values) => Tensor::from_data(values.as_slice(), &device),
            Self::Added(u, v, [rows, rank, columns]) => {
                let u = Tensor::<2>::from_data(TensorData::new(u, [rows, rank]), &device);
                let v = Tensor::<2>::from_data(TensorData::new(v, [rank, columns]), &device);
                let product = u.matmul(v).reshape([rows * columns]);
                old.cast(FloatDType::F32) + product
            }
        }
    }
}

/// What a file changes, by the U-Net's keys.
fn changes(file: &Checkpoint, unet: &UNet2DConditionModel) -> Result<BTreeMap<String, Change>> {
    let refuse = |reason: String| Error::format(file.path(), reason);
    let shapes: BTreeMap<&str, &[usize]> = unet.names().iter().collect();
    let mut changes = BTreeMap::new();
    for name in file.keys() {
        if name.starts_with("text_encoder.") {
            let reason = "holds a text encoder beside the U-Net's weights, which is not read; \
                          export the model with the program that trained it";
            return Err(refuse(reason.into()));
        }
        let factor = name.strip_suffix(".u").or(name.strip_suffix(".v"));
        let key = factor.unwrap_or(name);
        if weight(key).is_none() {
            let reason = format!(
                "holds `{name}`, which is no cross-attention weight; expected a file of Custom \
                 Diffusion as diffusers or its authors write it"
            );
            return Err(refuse(reason));
        }
        let Some(shape) = shapes.get(key) else {
            let reason = format!(
                "holds `{key}`, which this U-Net does not have; it belongs to another model"
            );
            return Err(refuse(reason));
        };
        if changes.contains_key(key) {
            continue;
        }
        let change = match factor {
            Some(_) => added(file, key, shape)?,
            None => Change::New(read(file, name, shape)?),
        };
        changes.insert(key.to_string(), change);
    }
    check_complete(file, &shapes, &changes)?;
    Ok(changes)
}

/// The two factors of a change, in the shapes that the weight demands.
fn added(file: &Checkpoint, key: &str, shape: &[usize]) -> Result<Change> {
    let (u, v) = (format!("{key}.u"), format!("{key}.v"));
    let rank = file.info(&u).and_then(|info| info.shape.get(1)).copied();
    let (Some(rank), &[rows, columns]) = (rank, shape) else {
        let reason = format!("holds one of `{u}` and `{v}`, or of another shape than a matrix has");
        return Err(Error::format(file.path(), reason));
    };
    let u = read(file, &u, &[rows, rank])?;
    let v = read(file, &v, &[rank, columns])?;
    Ok(Change::Added(u, v, [rows, rank, columns]))
}

/// The values of a tensor of this shape.
fn read(file: &Checkpoint, key: &str, expected: &[usize]) -> Result<Vec<f32>> {
    let path = file.path();
    let Some((values, found)) = file.read_f32(key)? else {
        return Err(Error::format(
            path,
            format!("tensor `{key}` is missing; the file is incomplete"),
        ));
    };
    if found != expected {
        return Err(Error::Shape {
            path: path.to_path_buf(),
            key: key.to_string(),
            found,
            expected: expected.to_vec(),
        });
    }
    if values.iter().any(|value| !value.is_finite()) {
        let reason = format!("tensor `{key}` holds NaN or infinite values; the file is damaged");
        return Err(Error::format(path, reason));
    }
    Ok(values)
}

/// Refuses a file in which only some of the layers have a weight that others have.
fn check_complete(
    file: &Checkpoint,
    shapes: &BTreeMap<&str, &[usize]>,
    changes: &BTreeMap<String, Change>,
) -> Result<()> {
    let changed: BTreeSet<usize> = changes
        .keys()
        .filter_map(|key| Some(weight(key)?.1))
        .collect();
    if !(0..KEYS_AND_VALUES).all(|number| changed.contains(&number)) {
        let reason = "holds no keys and values of cross-attention; expected a file of Custom \
                      Diffusion as diffusers or its authors write it";
        return Err(Error::format(file.path(), reason));
    }
    let mut expected = shapes.keys().filter(|key| {
        let number = weight(key).map(|(_, number)| number);
        number.is_some_and(|number| changed.contains(&number))
    });
    match expected.find(|key| !changes.contains_key(**key)) {
        None => Ok(()),
        Some(key) => {
            let reason = format!(
                "lacks `{key}`, though it has that weight of other layers; it is incomplete or belongs to another model"
            );
            Err(Error::format(file.path(), reason))
        }
    }
}

/// Writes a folder as diffusers' `train_custom_diffusion.py` leaves it: the cross-attention weights and,
/// where one was learned, the concept in a file of its token's name. All of cross-attention is what the
/// script writes with `--freeze_model crossattn`. `card` is the text of the folder's model card.
///
/// # Errors
/// [`Error::Invalid`] when `out` exists or the token cannot be the name of a file; an unwritable folder,
/// of which then nothing is left.
pub fn export(
    unet: &UNet2DConditionModel,
    concept: Option<&LearnedEmbedding>,
    held: Held,
    precision: Precision,
    card: &str,
    out: &Path,
) -> Result<()> {
    NewFolder::check(out)?;
    if let Some(concept) = concept
        && !crate::files::is_plain_name(&concept.token)
    {
        return Err(Error::Invalid(format!(
            "the concept's token `{}` cannot be the name of a file, which this format wants",
            concept.token
        )));
    }
    let folder = NewFolder::begin(out)?;
    let made = folder.path();
    std::fs::create_dir_all(&made).map_err(Error::io(&made))?;
    let written = match held {
        Held::KeysAndValues => KEYS_AND_VALUES,
        Held::All => WEIGHTS.len(),
    };
    let mut tensors = Vec::new();
    unet.names().read(unet, |param| {
        if let Some((block, number)) = weight(param.name).filter(|(_, number)| *number < written) {
            let mut tensor = TensorToWrite::from(param);
            tensor.name = format!("{block}.attn2.processor.{}", WEIGHTS[number].1);
            tensors.push(tensor);
        }
    });
    // diffusers counts attention layers by these keys, and refuses files without those of
    // self-attention; its own script leaves them out of safetensors files.
    let blocks = unet
        .names()
        .keys()
        .filter_map(|key| key.strip_suffix(".attn1.to_q.weight"));
    tensors.extend(blocks.map(|block| TensorToWrite {
        name: format!("{block}.attn1.processor"),
        shape: vec![0],
        values: Vec::new(),
    }));
    let file = made.join(format!("{FILE}.safetensors"));
    save_tensors(&file, tensors, precision, &[])?;
    write_atomically(&made.join(MODEL_CARD), card.as_bytes())?;
    if let Some(concept) = concept {
        let shape = match concept.num_vectors {
            1 => vec![concept.dim],
            count => vec![count, concept.dim],
        };
        let tensor = TensorToWrite {
            name: concept.token.clone(),
            shape,
            values: concept.vectors.clone(),
        };
        let file = made.join(format!("{}.safetensors", concept.token));
        save_tensors(&file, vec![tensor], precision, &[])?;
    }
    folder.finish()
}
