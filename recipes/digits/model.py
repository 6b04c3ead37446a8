"""The digits network: a small residual CNN with full and depthwise-separable blocks.

It is made to be a fair test of the whole tool at a small size. The full 3x3 convolutions hold most of the arithmetic
and are what INT8 speeds up. The depthwise convolutions, the residual additions and the projection shortcuts are what
makes pruning and quantization hard in larger networks.
"""

from __future__ import annotations

from torch import Tensor, nn


def digits_resnet(width: int = 32) -> nn.Module:
    """The network of this recipe, with random weights.

    Args:
        width: Channels of the first layer; the later stages have two and four times as many. A multiple of 16 suits
            the kernels of most runtimes.

    Returns:
        A module from float32 (N, 1, 32, 32) to logits (N, 10).
    """
    return DigitsResNet(width)


class DigitsResNet(nn.Module):
    """Stem, four residual blocks, global average pooling and a linear ``head``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(1, width), nn.ReLU())
        self.blocks = nn.Sequential(
            ResidualBlock(width, 2 * width, stride=2),  # 32x32 -> 16x16
            ResidualBlock(2 * width, 2 * width),
            ResidualBlock(2 * width, 4 * width, stride=2, separable=True),  # 16x16 -> 8x8
            ResidualBlock(4 * width, 4 * width, separable=True),
        )
        self.head = nn.Linear(4 * width, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (N, 10) of float32 images (N, 1, 32, 32)."""
        features: Tensor = self.blocks(self.stem(image))
        # Not AdaptiveAvgPool2d: with a dynamic batch the exporter writes nine helper nodes for it, for a mean one.
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """``relu(shortcut(x) + body(x))`` with two 3x3 convolutions in the body, full or depthwise-separable.

    The shortcut is the identity where the shapes allow it, else a 1x1 convolution (He et al. 2016, "option B").
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, separable: bool = False) -> None:
        super().__init__()
        conv = _separable_conv if separable else _conv
        self.body = nn.Sequential(*conv(inputs, outputs, stride=stride), nn.ReLU(), *conv(outputs, outputs))
        same_shape = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same_shape else nn.Sequential(*_conv(inputs, outputs, kernel=1, stride=stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        result: Tensor = self.relu(self.shortcut(x) + self.body(x))
        return result


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution with "same" padding, then batch normalization."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def _separable_conv(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
    """Depthwise 3x3, then pointwise 1x1 (Howard et al. 2017, MobileNet)."""
    return [
        *_conv(inputs, inputs, stride=stride, groups=inputs),
        nn.ReLU(),
        *_conv(inputs, outputs, kernel=1),
    ]
