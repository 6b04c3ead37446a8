"""Small networks with everything that makes structured pruning hard. Tiny widths, so that tests are fast."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Plain(nn.Module):
    """conv, conv, flatten, linear: the flatten makes each channel sixteen inputs of the head."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(*_conv(3, width), nn.ReLU(), *_conv(width, 2 * width, stride=2), nn.ReLU())
        self.hidden = nn.Linear(2 * width * 16, 24)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.hidden(self.features(x).flatten(1))))


class HardView(nn.Module):
    """A view with a written-out number of channels: pruning the last convolution breaks it, the others are fine."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.a = nn.Sequential(*_conv(3, 2 * width), nn.ReLU())
        self.b = nn.Sequential(*_conv(2 * width, 2 * width), nn.ReLU())
        self.c = nn.Sequential(*_conv(2 * width, width, stride=2), nn.ReLU())
        self.head = nn.Linear(width * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(self.b(self.a(x)))
        y = y.view(-1, self.width * 16)
        return self.head(y)


class OnlyHardView(nn.Module):
    """Nothing can be pruned here."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 2, 1)
        self.head = nn.Linear(16 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(y.view(-1, 256))


class Basic(nn.Module):
    """ResNet block; ``option`` is how the shortcut grows: "pad" (He et al. 2016, option A) or "conv" (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.a = nn.Sequential(*_conv(inputs, outputs, stride=stride))
        self.b = nn.Sequential(*_conv(outputs, outputs))
        self.stride, self.grow, self.option = stride, outputs - inputs, option
        if option == "conv" and (stride > 1 or inputs != outputs):
            self.shortcut: nn.Module = nn.Sequential(*_conv(inputs, outputs, 1, stride))
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(functional.relu(self.a(x)))
        if self.option == "pad" and self.grow:
            half = self.grow // 2
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half), "constant", 0)
        return functional.relu(y + self.shortcut(x))


class ResNet20(nn.Module):
    """For small images, with the reshape as most public code writes it."""

    def __init__(
        self, width: int = 8, option: str = "pad", blocks: int = 3, classes: int = 5, channels: int = 3
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(channels, width))
        layers: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            for block in range(blocks):
                outputs = width * 2**stage
                layers.append(Basic(inputs, outputs, 2 if stage and not block else 1, option))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(functional.relu(self.stem(x)))
        y = functional.avg_pool2d(y, y.size()[3])
        return self.head(y.view(y.size(0), -1))


class SqueezeExcite(nn.Module):
    """Gates channels by their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(gate)


class Bottleneck(nn.Module):
    """Inverted residual with depthwise convolution, PReLU and squeeze-excite."""

    def __init__(self, inputs: int, outputs: int, expand: int, stride: int) -> None:
        super().__init__()
        mid = inputs * expand
        self.body = nn.Sequential(
            *_conv(inputs, mid, 1),
            nn.PReLU(mid),
            *_conv(mid, mid, 3, stride, groups=mid),
            nn.PReLU(mid),
            SqueezeExcite(mid),
            *_conv(mid, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileFaceNet(nn.Module):
    """PReLU, depthwise, squeeze-excite, global depthwise convolution, embedding output that is normalised."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, width, stride=2), nn.PReLU(width))
        self.blocks = nn.Sequential(
            Bottleneck(width, width, 2, 1), Bottleneck(width, 2 * width, 2, 2), Bottleneck(2 * width, 2 * width, 2, 1)
        )
        self.last = nn.Sequential(*_conv(2 * width, 4 * width, 1), nn.PReLU(4 * width))
        self.gdc = nn.Sequential(
            nn.Conv2d(4 * width, 4 * width, 4, groups=4 * width, bias=False), nn.BatchNorm2d(4 * width)
        )
        self.embed = nn.Linear(4 * width, 12, bias=False)
        self.bn = nn.BatchNorm1d(12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gdc(self.last(self.blocks(self.stem(x))))
        return functional.normalize(self.bn(self.embed(y.flatten(1))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project without activation (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, expand: int, stride: int) -> None:
        super().__init__()
        mid = inputs * expand
        widen = [*_conv(inputs, mid, 1), nn.ReLU6()] if expand > 1 else []
        self.body = nn.Sequential(*widen, *_conv(mid, mid, 3, stride, groups=mid), nn.ReLU6(), *_conv(mid, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 (Sandler et al. 2018, table 2) for small images: fewer strides, half of the blocks and widths."""

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(channels, width), nn.ReLU6())
        blocks: list[nn.Module] = []
        inputs = width
        for expand, outputs, count, stride in ((1, width // 2, 1, 1), (6, width, 2, 2), (6, 2 * width, 2, 2)):
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, expand, 1 if number else stride))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*_conv(inputs, 8 * width, 1), nn.ReLU6())
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class DenseNet(nn.Module):
    """Every layer sees the outputs of all earlier ones."""

    def __init__(self, growth: int = 8, layers: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(16 + i * growth), nn.ReLU(), nn.Conv2d(16 + i * growth, growth, 3, 1, 1))
            for i in range(layers)
        )
        self.norm = nn.BatchNorm2d(16 + layers * growth)
        self.head = nn.Linear(16 + layers * growth, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for layer in self.layers:
            y = torch.cat([y, layer(y)], 1)
        return self.head(functional.relu(self.norm(y)).mean((2, 3)))


def _shuffle(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleUnit(nn.Module):
    """Half of the channels pass; then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            *_conv(half, half, 1), nn.ReLU(), *_conv(half, half, 3, groups=half), *_conv(half, half, 1), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return _shuffle(torch.cat((left, self.branch(right)), dim=1))


class ShuffleNet(nn.Module):
    """Two shuffle units (Ma et al. 2018), then plain convolutions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, width, stride=2), nn.ReLU())
        self.units = nn.Sequential(ShuffleUnit(width), ShuffleUnit(width))
        self.last = nn.Sequential(*_conv(width, 64), nn.ReLU(), *_conv(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.units(self.stem(x))).mean((2, 3)))


class Grouped(nn.Module):
    """ResNeXt-like: a grouped convolution inside a residual bottleneck."""

    def __init__(self, width: int = 32, groups: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.a = nn.Sequential(*_conv(width, width, 1), nn.ReLU())
        self.b = nn.Sequential(*_conv(width, width, 3, groups=groups), nn.ReLU())
        self.c = nn.Sequential(*_conv(width, width, 1))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.stem(x))
        return self.head((y + self.c(self.b(self.a(y)))).mean((2, 3)))


class Scaled(nn.Module):
    """Learnable scales that belong to no layer, and one convolution that is used twice."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1)
        self.gamma = nn.Parameter(torch.full((1, width, 1, 1), 0.5))
        self.twice = nn.Conv2d(width, width, 3, 1, 1)
        self.wide = nn.Conv2d(width, 2 * width, 3, 1, 1)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x) * self.gamma
        y = functional.relu(self.twice(functional.relu(self.twice(y))))
        return self.head(functional.relu(self.wide(y)).mean((2, 3)))


class Norms(nn.Module):
    """GroupNorm, InstanceNorm, LayerNorm over channels last, and a transposed convolution."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, 2, 1)
        self.gn = nn.GroupNorm(4, width)
        self.b = nn.Conv2d(width, width, 3, 1, 1)
        self.inorm = nn.InstanceNorm2d(width, affine=True)
        self.up = nn.ConvTranspose2d(width, 2 * width, 2, 2)
        self.c = nn.Conv2d(2 * width, width, 3, 2, 1)
        self.ln = nn.LayerNorm(width)
        self.d = nn.Linear(width, 4 * width)
        self.e = nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.gn(self.a(x)))
        y = functional.relu(self.inorm(self.b(y)))
        y = functional.relu(self.up(y))
        y = self.c(y).permute(0, 2, 3, 1)
        y = y + self.e(functional.gelu(self.d(self.ln(y))))
        return self.head(y.mean((1, 2)))


class ChannelMean(nn.Module):
    """Mixes channels outside of a layer (as spatial attention does): those channels cannot be cut unnoticed."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, 1, 1)
        self.b = nn.Conv2d(width, width, 3, 1, 1)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.b(functional.relu(self.a(x))))
        return self.head((y * torch.sigmoid(y.mean(1, keepdim=True))).mean((2, 3)))
