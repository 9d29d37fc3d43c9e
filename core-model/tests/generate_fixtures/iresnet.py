"""A tiny iResNet with random weights under the key names of insightface's `backbone.pth`, and its features.

Writes ../fixtures/iresnet/: `config.json` and `backbone.pth` as users have them, and `expected.safetensors`
with the features of two faces and of their mirror images. Run with torch and safetensors installed:

    python core-model/tests/generate_fixtures/iresnet.py

The network is written here from its description (Duta et al. 2020; ArcFace's variant with a stride in the
second convolution), not taken from a library. Results are also computed in float64 and must agree to 1e-5.
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "iresnet"
LAYERS, WIDTHS, FEATURES = [2, 1, 3, 1], [4, 6, 8, 10, 12], 8


def faces():
    """Two faces of 112 x 112 pixels, [2, 3, 112, 112] in [-1, 1]; the test makes the same."""
    n, c, y, x = torch.meshgrid(torch.arange(2), torch.arange(3), torch.arange(112), torch.arange(112), indexing="ij")
    levels = (y * (2 + n) + x * 3 + c * 29 + (x * y) % (17 + n)) % 256
    return (levels.float() - 127.5) / 127.5


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride == 2:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        for stage, count in enumerate(LAYERS):
            inputs, outputs = WIDTHS[stage : stage + 2]
            blocks = [Block(inputs, outputs, 2)] + [Block(outputs, outputs, 1) for _ in range(count - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm2d(WIDTHS[-1])
        self.fc = nn.Linear(WIDTHS[-1] * 49, FEATURES)
        self.features = nn.BatchNorm1d(FEATURES)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    torch.manual_seed(0)
    network = Network().eval()
    for key, tensor in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            tensor.fill_(1000)
        elif key.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand_like(tensor))
        elif tensor.ndim > 1:
            tensor.normal_(0, 1.4 / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_((0.2 if key.endswith(("bias", "mean")) else 1.0) * torch.randn_like(tensor))
    torch.save(network.state_dict(), FOLDER / "backbone.pth")
    (FOLDER / "config.json").write_text(json.dumps({"model_type": "iresnet", "layers": LAYERS}) + "\n")
    with torch.no_grad():
        expected = {"faces": network(faces()), "mirrored": network(faces().flip(3))}
        wide = network.double()(faces().double())
    assert (expected["faces"].double() - wide).abs().max() / wide.abs().max() < 1e-5
    save_file({key: value.contiguous() for key, value in expected.items()}, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main()
