"""Tiny SigLIP models with what transformers computes with them.

Writes ../fixtures/siglip/: folders as `save_pretrained` writes them, in float16, beside
`expected.safetensors`, and a tokenizer with the ids that it gives. Run with transformers installed:

    python core-model/tests/generate_fixtures/siglip.py

Every result is also computed in float64 and must agree to 2e-5.
"""

import json
import pathlib
import shutil

import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessorPil, SiglipModel

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
FOLDER = FIXTURES / "siglip"
LENGTH, SIDE = 8, 12
WORDS = ["▁a", "▁dog", "▁red", "▁hat", "▁on", "▁the", "▁beach", "s", "▁", "o", "d", "g", "h", "a", "t", "e", "r", "b", "c"]
TEXTS = ["a dog", "A RED dog's hat, on the beach!", "a cat  on a hat", "a dog on the beach on the red beach", ""]


def tokenizer(folder):
    pieces = [("</s>", 0.0), ("<unk>", -20.0)] + [(word, -1.0 - index / 4) for index, word in enumerate(WORDS)]
    words = Tokenizer(models.Unigram(pieces, unk_id=1))
    words.normalizer = normalizers.Sequence([
        normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(),
    ])
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=LENGTH,
        padding_side="right")
    fast.save_pretrained(folder)
    ids = fast(TEXTS, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    return ids, len(pieces)


def randomise(model, seed):
    """Weights in float16 steps that are large enough for every part to matter."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 1.0 if "embedding" in name or "probe" in name else 1.5 / parameter.shape[-1] ** 0.5
        center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = (center + scale * torch.randn_like(parameter)).half().float()


@torch.no_grad()
def features(model, ids, pixels):
    text = model.get_text_features(input_ids=ids)
    image = model.get_image_features(pixel_values=pixels)
    return [getattr(part, "pooler_output", part) for part in (text, image)]


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    # One folder holds everything that an encoder's folder holds.
    whole = FOLDER / "default"
    ids, vocabulary = tokenizer(whole)
    processor = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(whole)
    photograph = Image.open(FIXTURES / "image-processor/photograph.png").convert("RGB")
    pixels = torch.cat([
        processor(photograph, return_tensors="pt").pixel_values,
        torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)),
    ])
    text = {"vocab_size": vocabulary, "hidden_size": 18, "intermediate_size": 30, "num_hidden_layers": 2,
            "num_attention_heads": 3, "max_position_embeddings": LENGTH}
    vision = {"hidden_size": 18, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": SIDE, "patch_size": 4}
    cases = {
        "default": (text, vision),
        # As SigLIP's shape-optimised checkpoints, and with another activation.
        "other-widths": (text | {"hidden_size": 12, "projection_size": 18, "hidden_act": "gelu"},
                         vision | {"layer_norm_eps": 1e-3, "hidden_act": "gelu"}),
    }
    expected = {"ids": ids, "pixels": pixels}
    for seed, (name, (text_config, vision_config)) in enumerate(cases.items()):
        model = SiglipModel(SiglipConfig(text_config=text_config, vision_config=vision_config)).eval()
        randomise(model, seed)
        model.half().save_pretrained(FOLDER / name)
        narrow, wide = (
            features(SiglipModel.from_pretrained(FOLDER / name, dtype=dtype).eval(), ids, pixels.to(dtype))
            for dtype in (torch.float32, torch.float64)
        )
        for key, ours, theirs in zip(("text", "image"), narrow, wide):
            assert (ours.double() - theirs).abs().max() / theirs.abs().max() < 2e-5, (name, key)
            expected[f"{name}.{key}"] = ours.contiguous()
    save_file(expected, FOLDER / "expected.safetensors")
    (FOLDER / "texts.json").write_text(json.dumps(TEXTS, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
