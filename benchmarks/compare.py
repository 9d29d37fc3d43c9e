"""Times the steps of the mini world with the same weights in this project and in PyTorch, in turns; prints ratios.

    cargo build --workspace --examples
    python benchmarks/compare.py [--threads 2] [--pairs 20] [--avx2]

Needs torch, diffusers and transformers; steps.py says what PyTorch computes. Shapes are those of the mini world's
recipes. Peak memory is that of a process that does nothing else. `--avx2` keeps both from using AVX-512.
"""

import argparse
import os
import statistics

from steps import AVX2, ROOT, ours, theirs

MODEL = ROOT / "models" / "mini"
TOKENS = 24
TASKS = {
    # name: (arguments of our half, task and batch of PyTorch's)
    "U-Net forward": (["forward", MODEL, 8, TOKENS], ["forward", 8]),
    "embedding step": (["train", ROOT / "benchmarks" / "textual-inversion.toml", 0], ["embedding", 6]),
    "CoRe step": (["train", ROOT / "benchmarks" / "core.toml", 0], ["core", 6]),
    "all-weights step": (["train", ROOT / "benchmarks" / "core.toml", 1], ["unet", 4]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--avx2", action="store_true")
    arguments = parser.parse_args()
    environment = AVX2 if arguments.avx2 else {}
    print(f"{'step':18} {'ours ms':>8} {'torch ms':>9} {'ratio':>6} {'ours MB':>8} {'torch MB':>9}")
    for name, (our_arguments, (task, batch)) in TASKS.items():
        processes = [
            ours(our_arguments, arguments.threads, environment),
            theirs([task, MODEL, batch, TOKENS], arguments.threads, environment),
        ]
        for _ in range(3):
            for process in processes:
                process.step()
        pairs = [[process.step() for process in processes] for _ in range(arguments.pairs)]
        a, b = (statistics.median(column) * 1000 for column in zip(*pairs))
        ratio = statistics.median(x / y for x, y in pairs)
        ours_mb, torch_mb = (process.end() * 1024 for process in processes)
        print(f"{name:18} {a:8.1f} {b:9.1f} {ratio:6.2f} {ours_mb:8.0f} {torch_mb:9.0f}", flush=True)


if __name__ == "__main__":
    main()
