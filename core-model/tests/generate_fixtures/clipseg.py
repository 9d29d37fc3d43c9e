"""Tiny CLIPSeg models with what transformers computes with them.

Writes ../fixtures/clipseg/: folders as `save_pretrained` writes them, in float16, beside
`io.safetensors`. Run with transformers installed:

    python core-model/tests/generate_fixtures/clipseg.py

Every result is also computed in float64 and must agree to 2e-5.
"""

import torch
from clip import FIXTURES, check, randomise, save, text_sizes
from safetensors.torch import save_file
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

CLIPSEG = FIXTURES / "clipseg"
IDS = torch.tensor([[38, 3, 17, 5, 39, 0, 0, 0, 0], [38, 9, 8, 7, 6, 5, 4, 3, 39]])


def vision(**changes):
    sizes = {"hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 4, "num_attention_heads": 2,
             "image_size": 12, "patch_size": 4}
    return sizes | changes


CASES = {
    # One transposed convolution, the picture of CLIP's own size, the last layer unused.
    "simple": (
        {"extract_layers": [0, 2], "reduce_dim": 12, "decoder_num_attention_heads": 3, "decoder_intermediate_size": 20},
        text_sizes(hidden_act="gelu"), vision(hidden_act="gelu", layer_norm_eps=1e-4), 12,
    ),
    # As CIDAS/clipseg-rd64-refined: three convolutions, interpolated positions, end token 2.
    "refined": (
        {"extract_layers": [0, 1, 3], "reduce_dim": 8, "decoder_num_attention_heads": 2,
         "decoder_intermediate_size": 24, "conditional_layer": 1, "use_complex_transposed_convolution": True},
        text_sizes(eos_token_id=2, bos_token_id=0, pad_token_id=1), vision(image_size=48, patch_size=16), 80,
    ),
}


def main():
    CLIPSEG.mkdir(parents=True, exist_ok=True)
    for seed, (name, (decoder, text, image, side)) in enumerate(CASES.items()):
        config = CLIPSegConfig(text_config=text, vision_config=image, projection_dim=10, **decoder)
        model = CLIPSegForImageSegmentation(config)
        randomise(model, 40 + seed)
        # Smaller weights where the norms come last, or rounding shows in the gradients.
        for key, parameter in model.decoder.named_parameters():
            if "norm" not in key:
                parameter.data = (parameter.data / 2).half().float()
        save(model, CLIPSEG / name)
        pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
        weights = torch.randn(2, side, side, generator=torch.Generator().manual_seed(10 + seed))
        for dtype in (torch.float32, torch.float64):
            twin = CLIPSegForImageSegmentation.from_pretrained(CLIPSEG / name, dtype=dtype)
            logits = twin(input_ids=IDS, pixel_values=pixels.to(dtype)).logits
            (logits * weights.to(dtype)).sum().backward()
            # Softmax takes no notice of the bias of keys: its gradient is rounding.
            trained = [item for item in twin.decoder.named_parameters() if not item[0].endswith("k_proj.bias")]
            gradients = {f"grad.decoder.{key}": value.grad for key, value in trained}
            results = {"logits": logits.detach(), **gradients}
            if dtype is torch.float32:
                narrow = results
        check(narrow, results)
        golden = {"pixels": pixels, "weights": weights, **narrow}
        golden = {key: value.contiguous() for key, value in golden.items()}
        save_file(golden, CLIPSEG / name / "io.safetensors")


if __name__ == "__main__":
    main()
