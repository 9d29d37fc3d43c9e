"""Values and gradients in PyTorch: of the context terms for tests/integration/pytorch.rs, of the
angular margin for tests/integration/angular_margin.rs.

    python core-losses/tests/generate_fixtures.py

Written from the paper's equations and from the public behaviour of the authors' code, with
torch's own cosine_similarity and mse_loss. Everything is also computed in float64; the script
fails when float32 rounding alone comes near the tolerance of the test.
"""

import json
import math
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


SCALE, MARGIN = 16.0, 0.3


def margin_of_formula(cosines, labels):
    """s cos(theta + m) by the arc cosine, differentiated by autograd."""
    own = cosines.gather(1, labels[:, None])
    theta = own.acos()
    moved = torch.where(theta < math.pi - MARGIN, (theta + MARGIN).cos(), own - MARGIN * math.sin(MARGIN))
    return SCALE * cosines.scatter(1, labels[:, None], moved)


def margin_outside_of_autograd(cosines, labels):
    """The same values; as in the authors' code autograd does not see the margin."""
    with torch.no_grad():
        change = margin_of_formula(cosines, labels) / SCALE - cosines
    return SCALE * (cosines + change)


def angular_margin():
    generator = torch.Generator().manual_seed(5)
    features = F.normalize(torch.randn(8, 5, generator=generator, dtype=torch.float64), dim=1)
    centres = F.normalize(torch.randn(12, 5, generator=generator, dtype=torch.float64), dim=1)
    cosines = features @ centres.T
    labels = torch.randint(0, 12, (8,), generator=generator)
    # The nearest and the farthest centre of two features, so that one lies beyond pi - m.
    labels[0], labels[1] = cosines[0].argmax(), cosines[1].argmin()
    centres[labels[1]] = F.normalize(0.1 * centres[labels[1]] - features[1], dim=0)
    cosines = features @ centres.T
    assert cosines[1, labels[1]].acos() > math.pi - MARGIN
    tensors = {"cosines": cosines, "labels": labels.double()}
    for name, logits_of in [("true", margin_of_formula), ("reference", margin_outside_of_autograd)]:
        x = cosines.clone().requires_grad_()
        logits = logits_of(x, labels)
        loss = F.cross_entropy(logits, labels)
        tensors[f"{name}.logits"] = logits.detach()
        tensors[f"{name}.loss"] = loss.detach().reshape(1)
        tensors[f"{name}.grad"] = torch.autograd.grad(loss, x)[0]
    save_file({key: value.contiguous() for key, value in tensors.items()}, OUT / "angular_margin.safetensors")


def main():
    OUT.mkdir(exist_ok=True)
    context()
    angular_margin()


def context():
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
    save_file(tensors, OUT / "context.safetensors")
    (OUT / "context.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
