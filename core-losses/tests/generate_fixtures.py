"""Values and gradients of the context terms in PyTorch, for tests/integration/pytorch.rs.

    python core-losses/tests/generate_fixtures.py

Written from the paper's equations and from the public behaviour of the authors' code, with
torch's own cosine_similarity and mse_loss. Everything is also computed in float64; the script
fails when float32 rounding alone comes near the tolerance of the test.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "fixtures"
CONTEXT_LENGTH, CHANNELS, BATCH = 12, 16, 3
LAYERS = [(2, 16), (2, 4), (4, 1), (2, 16)]  # heads, pixels: layers differ in both

# name, learned (length, span), reference (length, span)
PROMPTS = [
    ("one_token", (7, (2, 3)), (7, (2, 3))),
    ("two_tokens", (7, (2, 3)), (8, (2, 4))),
    ("three_vectors", (9, (1, 4)), (7, (1, 2))),
]


def kept(span, end):
    return [i for i in range(end) if not span[0] <= i < span[1]]


def positions(learned, reference, context):
    if context == "prompt":
        return kept(learned[1], learned[0]), kept(reference[1], reference[0])
    a, b = kept(learned[1], CONTEXT_LENGTH), kept(reference[1], CONTEXT_LENGTH)
    n = min(len(a), len(b))
    return a[:n], b[:n]


def embedding_term(e, e_ref, keep, formulation):
    dim = 2 if formulation == "paper" else 1
    return (1 - F.cosine_similarity(e[:, keep[0]], e_ref[:, keep[1]], dim=dim)).mean()


def attention_term(maps, maps_ref, keep, formulation):
    mu = [m.mean(dim=(1, 2))[:, keep[0]] for m in maps]
    mu_ref = [m.mean(dim=(1, 2))[:, keep[1]] for m in maps_ref]
    if formulation == "paper":
        return F.mse_loss(torch.stack(mu).mean(0), torch.stack(mu_ref).mean(0))
    total = 0.0
    for a, b in zip(mu, mu_ref):
        for sample, sample_ref in zip(a, b):
            total = total + F.mse_loss(sample, sample_ref)
    return total / len(mu)


def compute(inputs, keep, formulation, dtype):
    e = inputs["embeddings"].to(dtype).requires_grad_()
    maps = [inputs[f"attention.{i}"].to(dtype).requires_grad_() for i in range(len(LAYERS))]
    maps_ref = [inputs[f"reference_attention.{i}"].to(dtype) for i in range(len(LAYERS))]
    emb = embedding_term(e, inputs["reference_embeddings"].to(dtype), keep, formulation)
    attn = attention_term(maps, maps_ref, keep, formulation)
    grad_e = torch.autograd.grad(emb, e)[0]
    grad_maps = torch.autograd.grad(attn, maps)
    out = {"context_embedding": emb.detach().reshape(1), "context_attention": attn.detach().reshape(1)}
    out["context_embedding.grad"] = grad_e
    for i, grad in enumerate(grad_maps):
        out[f"context_attention.grad.{i}"] = grad
    return out


def main():
    torch.manual_seed(3)
    tensors, cases = {}, []
    inputs = {
        "embeddings": torch.randn(1, CONTEXT_LENGTH, CHANNELS),
        "reference_embeddings": torch.randn(1, CONTEXT_LENGTH, CHANNELS),
    }
    for i, (heads, pixels) in enumerate(LAYERS):
        shape = (BATCH, heads, pixels, CONTEXT_LENGTH)
        inputs[f"attention.{i}"] = torch.randn(shape).mul(2).softmax(-1)
        inputs[f"reference_attention.{i}"] = torch.randn(shape).mul(2).softmax(-1)
    tensors.update(inputs)
    for name, learned, reference in PROMPTS:
        for context in ("prompt", "padded"):
            for formulation in ("paper", "reference_code"):
                keep = positions(learned, reference, context)
                case = f"{name}.{context}.{formulation}"
                single = compute(inputs, keep, formulation, torch.float32)
                double = compute(inputs, keep, formulation, torch.float64)
                for key, value in single.items():
                    scale = double[key].abs().max()
                    error = (value.double() - double[key]).abs().max() / scale
                    assert error < 2e-5, (case, key, error)
                    tensors[f"{case}.{key}"] = value.contiguous()
                cases.append(
                    {
                        "name": case,
                        "context": context,
                        "formulation": formulation,
                        "learned": {"length": learned[0], "concept": learned[1]},
                        "reference": {"length": reference[0], "concept": reference[1]},
                    }
                )
    OUT.mkdir(exist_ok=True)
    save_file(tensors, OUT / "context.safetensors")
    (OUT / "context.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
