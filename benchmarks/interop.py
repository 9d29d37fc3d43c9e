"""Shows that other tools open what this project ships and writes, and compute the same.

    cargo build --workspace
    python benchmarks/interop.py [--results results/ablation]

Needs torch, diffusers and transformers. Each check prints its largest relative difference:
diffusers samples the same final latents from models/mini (DDIM with guidance); a tuned U-Net folder and
an embedding written by a run open in diffusers and give the same latents, and so does the folder that
`core-train export` makes of the run, and the files of Custom Diffusion that it makes; an embedding and a U-Net written by torch and diffusers give the same
here; transformers reproduces the CLIP and DINO scores of an experiment's scores.csv and, with the
masks of models/mini-clipseg, the CLIP-I of scores-core.csv. The last two are left out when there are no
results.
"""

import argparse
import csv
import os
import pathlib
import subprocess
import tempfile

import numpy
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPSegForImageSegmentation, CLIPTokenizer, ViTModel
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

ROOT = pathlib.Path(__file__).parent.parent
MODEL = ROOT / "models" / "mini"
STEPS, GUIDANCE = 20, 6.0


def core_train(*arguments):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    subprocess.run([target / "debug" / "core-train", *map(str, arguments)], check=True, capture_output=True)


def difference(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def generate(source, prompt):
    """Initial latents and our final ones."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        save_file({"latents": latents}, folder / "init.safetensors")
        core_train(
            "generate", *source, "--prompt", prompt, "--num-images", 2, "--steps", STEPS,
            "--guidance-scale", GUIDANCE, "--scheduler", "ddim", "--init-latents", folder / "init.safetensors",
            "--save-latents", folder / "final.safetensors", "--out", folder,
        )
        return latents, load_file(folder / "final.safetensors")["latents"]


def draw(pipeline, prompt, latents):
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    out = pipeline(
        [prompt] * len(latents), num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=latents,
        output_type="latent",
    )
    return out.images


def check_generator():
    prompt = "a photo of a red dog on the beach"
    latents, ours = generate(["--model", MODEL], prompt)
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    print(f"models/mini in diffusers: {difference(ours, draw(pipeline, prompt, latents)):.1e}")


def check_run(num_vectors):
    """From here to diffusers: a short run's files, and the folder that `export` makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        run, exported = pathlib.Path(folder) / "run", pathlib.Path(folder) / "exported"
        settings = [f"concept.num_vectors={num_vectors}", "stages.0.steps=4", "stages.0.rescale=false"]
        settings += ["stages.1.steps=2"]
        sets = [word for setting in settings for word in ("--set", setting)]
        core_train("train", ROOT / "experiments/spotted-dog.toml", "--output", run, *sets)
        core_train("export", run, exported)
        token = list(load_file(run / "learned_embeds.safetensors"))[0]
        prompt = f"a photo of a {token} in the snow"
        latents, ours = generate(["--run", run], prompt)
        pipeline = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
        pipeline.load_textual_inversion(run / "learned_embeds.safetensors")
        pipeline.unet = UNet2DConditionModel.from_pretrained(run / "unet")
        theirs = draw(pipeline, prompt, latents)
        print(f"a run's embedding ({num_vectors}) and U-Net in diffusers: {difference(ours, theirs):.1e}")
        theirs = draw(StableDiffusionPipeline.from_pretrained(exported), prompt, latents)
        print(f"the exported folder in diffusers: {difference(ours, theirs):.1e}")
        _, ours = generate(["--model", exported], prompt)
        print(f"the exported folder here: {difference(ours, theirs):.1e}")


def check_reverse(num_vectors):
    """From diffusers to here: embeddings as torch and safetensors write them, a U-Net as diffusers does."""
    generator = torch.Generator().manual_seed(3)
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    table = pipeline.text_encoder.get_input_embeddings().weight
    vectors = table[:num_vectors].detach() + 0.01 * torch.randn(num_vectors, table.shape[1], generator=generator)
    with torch.no_grad():
        for parameter in pipeline.unet.parameters():
            parameter.mul_(1 + 0.01 * torch.randn(parameter.shape, generator=generator))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        pipeline.unet.save_pretrained(folder / "unet")
        token = "<strange-thing>"
        torch.save({token: vectors}, folder / "learned_embeds.bin")
        save_file({token: vectors}, folder / "learned_embeds.safetensors")
        prompt = f"a photo of a {token} in the snow"
        pipeline.load_textual_inversion(folder / "learned_embeds.safetensors")
        for name in ["learned_embeds.bin", "learned_embeds.safetensors"]:
            source = ["--model", MODEL, "--unet", folder / "unet", "--embedding", folder / name]
            latents, ours = generate(source, prompt)
            theirs = draw(pipeline, prompt, latents)
            print(f"{name} ({num_vectors}) and U-Net of diffusers here: {difference(ours, theirs):.1e}")


def check_custom_diffusion():
    """From here to diffusers: the files of Custom Diffusion, and the folder of the merged model."""
    with tempfile.TemporaryDirectory() as folder:
        run, files, merged = (pathlib.Path(folder) / name for name in ("run", "files", "merged"))
        settings = ["recipe=recipes/custom-diffusion.toml", "stages.0.steps=3"]
        settings += ["stages.0.regularizers.0.num_images=2"]
        sets = [word for setting in settings for word in ("--set", setting)]
        core_train("train", ROOT / "experiments/spotted-dog.toml", "--output", run, *sets)
        core_train("export", run, files, "--format", "custom-diffusion")
        core_train("export", run, merged)
        token = list(load_file(run / "learned_embeds.safetensors"))[0]
        prompt = f"a photo of a {token} dog in the snow"
        latents, ours = generate(["--run", run], prompt)
        pipeline = StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
        weights = "pytorch_custom_diffusion_weights.safetensors"
        # Without `_pipeline` diffusers 0.42 reads the file and leaves the U-Net as it is.
        pipeline.unet.load_attn_procs(files, weight_name=weights, _pipeline=pipeline)
        pipeline.load_textual_inversion(files / f"{token}.safetensors")
        theirs = draw(pipeline, prompt, latents)
        print(f"a run's files of Custom Diffusion in diffusers: {difference(ours, theirs):.1e}")
        theirs = draw(StableDiffusionPipeline.from_pretrained(merged), prompt, latents)
        print(f"the merged folder of Custom Diffusion in diffusers: {difference(ours, theirs):.1e}")


def check_masks(results, count=24):
    folder = ROOT / "models/mini-clipseg"
    network = CLIPSegForImageSegmentation.from_pretrained(folder, torch_dtype=torch.float32).eval()
    tokenizer, processor = CLIPTokenizer.from_pretrained(folder), ViTImageProcessorPil.from_pretrained(folder)
    clip_processor = CLIPImageProcessorPil.from_pretrained(ROOT / "models/mini-clip")
    clip = CLIPModel.from_pretrained(ROOT / "models/mini-clip", torch_dtype=torch.float32).eval()

    @torch.no_grad()
    def foreground(path, word):
        image = Image.open(path).convert("RGB")
        ids = tokenizer(word, padding="max_length", max_length=24, return_tensors="pt").input_ids
        logits = network(input_ids=ids, pixel_values=processor(image, return_tensors="pt").pixel_values).logits
        mask = (logits.reshape(image.height, image.width, 1) > 0).numpy()
        image = Image.fromarray(numpy.asarray(image) * mask.astype(numpy.uint8))
        vision = clip.vision_model(**clip_processor(image, return_tensors="pt")).pooler_output
        return normalised(clip.visual_projection(vision))

    with open(results / "scores-core.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["clip_i"]]
    rows = rows[:: max(1, len(rows) // count)]
    worst = 0.0
    for row in rows:
        concept = ROOT / "experiments/concepts" / row["concept"]
        photos = torch.cat([foreground(path, super_category(concept)) for path in sorted(concept.glob("*.png"))])
        image = foreground(results / row["image"], super_category(concept))
        worst = max(worst, abs((image @ photos.T).mean().item() - float(row["clip_i"])))
    print(f"{len(rows)} rows of scores-core.csv with CLIPSeg in transformers, largest difference: clip_i {worst:.1e}")


def super_category(concept):
    return next(
        line.split('"')[1] for line in (concept / "concept.toml").read_text().splitlines()
        if line.startswith("super_category")
    )


def normalised(features):
    return features / features.norm(dim=-1, keepdim=True)


def check_scores(results, count=24):
    clip = CLIPModel.from_pretrained(ROOT / "models/mini-clip", torch_dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "models/mini-clip")
    clip_processor = CLIPImageProcessorPil.from_pretrained(ROOT / "models/mini-clip")
    dino = ViTModel.from_pretrained(ROOT / "models/mini-dino", torch_dtype=torch.float32, add_pooling_layer=False)
    dino_processor = ViTImageProcessorPil.from_pretrained(ROOT / "models/mini-dino")
    dino.eval()

    @torch.no_grad()
    def features(paths):
        images = [Image.open(path).convert("RGB") for path in paths]
        vision = clip.vision_model(**clip_processor(images, return_tensors="pt")).pooler_output
        seen = dino(**dino_processor(images, return_tensors="pt")).last_hidden_state[:, 0]
        return normalised(clip.visual_projection(vision)), normalised(seen)

    @torch.no_grad()
    def text(prompt):
        ids = tokenizer(prompt, padding="max_length", max_length=24, return_tensors="pt").input_ids
        return normalised(clip.text_projection(clip.text_model(ids).pooler_output))

    with open(results / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    rows = rows[:: max(1, len(rows) // count)]
    worst = {"clip_t": 0.0, "clip_i": 0.0, "dino": 0.0}
    for row in rows:
        folder = ROOT / "experiments/concepts" / row["concept"]
        photos = features(sorted(folder.glob("*.png")))
        image = features([results / row["image"]])
        theirs = {
            "clip_t": (image[0] @ text(row["prompt"].replace("{}", super_category(folder))).T).item(),
            "clip_i": (image[0] @ photos[0].T).mean().item(),
            "dino": (image[1] @ photos[1].T).mean().item(),
        }
        for metric, value in theirs.items():
            worst[metric] = max(worst[metric], abs(value - float(row[metric])))
    figures = ", ".join(f"{metric} {value:.1e}" for metric, value in worst.items())
    print(f"{len(rows)} rows of scores.csv in transformers, largest difference: {figures}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "results/ablation")
    results = parser.parse_args().results
    check_generator()
    for num_vectors in [1, 3]:
        check_run(num_vectors)
        check_reverse(num_vectors)
    check_custom_diffusion()
    if results.exists():
        check_scores(results)
        check_masks(results)
