//! The networks of a text-to-image diffusion model and of its image encoders, read from the folders that
//! diffusers and transformers write.
//!
//! | part | module |
//! |---|---|
//! | parameters: from a checkpoint or fresh, named as in the file | [`params`], [`checkpoint`], [`changed_weights`] |
//! | networks in folders, read and written | [`network`] |
//! | learned concepts, as every tool writes them | [`learned_embedding`] |
//! | changes and rotations of layers in files of their own | [`lora`], [`oft`] |
//! | embeddings that differ by timestep and layer | [`neti`] |
//! | what learning a concept may change, as one module | [`personalized`] |
//! | prompts to images | [`pipeline`], [`conditioning`] |
//! | model folders with what was learned | [`export`] |
//! | models as users name them: folders, one-file checkpoints, repositories of the hub | [`source`], [`original_layout`] |
//! | models as they lie on disk | [`folder`] |
//! | prompts to numbers | [`tokenizer`] |
//! | the U-Net, the autoencoder, the text encoder | [`unet`], [`vae`], [`text_encoder`] |
//! | images to numbers, faces aligned | [`image_processor`], [`alignment`] |
//! | image encoders and the segmenter, for scores | [`clip`], [`siglip`], [`dino`], [`iresnet`], [`clipseg`] |
//! | people from photos without training | [`photomaker`], [`face2diffusion`], [`id_adapter`] |
//! | noise schedules for training and sampling | [`noise_scheduler`] |
//! | layers and the operations below them | [`nn`], [`ops`] |
//! | folders of photos, and what other files are | [`photos`], [`file_kind`] |
//! | devices, files, random numbers, memory | [`device`], [`files`], [`rng`], [`allocator`] |

pub mod alignment;
pub mod allocator;
pub mod changed_weights;
pub mod checkpoint;
mod class;
pub mod clip;
pub mod clipseg;
pub mod conditioning;
mod config;
pub mod custom_diffusion;
pub mod device;
pub mod dino;
pub mod error;
pub mod export;
pub mod face2diffusion;
pub mod file_kind;
pub mod files;
pub mod folder;
pub mod id_adapter;
pub mod image_processor;
pub mod iresnet;
pub mod learned_embedding;
pub mod lora;
mod model_index;
mod named;
pub mod neti;
pub mod network;
pub mod nn;
pub mod noise_scheduler;
pub mod oft;
pub mod ops;
pub mod original_layout;
pub mod params;
pub mod personalized;
pub mod photomaker;
pub mod photos;
mod pickle;
pub mod pipeline;
pub mod png_text;
mod positions;
pub mod precision;
mod resnet;
pub mod rng;
pub mod siglip;
pub mod source;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod vit;

pub use error::{Error, Result};
pub use network::Network;
pub use precision::Precision;
