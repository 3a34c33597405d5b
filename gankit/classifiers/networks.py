"""Networks that say what is in a picture. Trained by `gankit.classifiers`, they measure generated images.

Each has `shape` (C, H, W) of one image, `n_classes`, `n_features`, the share `test_accuracy` of correctly classified
test images after training (NaN before), `features(x)` and `logits(features)`; calling it gives the logits of images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """Two 3x3 convolutions (32 and 64 channels), each with 2x2 max pooling and ReLU, and two linear layers.

    Enough for digits and MNIST.

    Args:
        shape: ``(C, H, W)`` of one image, H and W at least 4.
        n_classes: number of classes.
        n_features: width of the penultimate layer.
    """

    def __init__(self, shape: tuple[int, int, int], n_classes: int, n_features: int = 64) -> None:
        super().__init__()
        channels, height, width = shape
        self.shape = (channels, height, width)
        self.n_classes = n_classes
        self.n_features = n_features
        self.test_accuracy = float("nan")
        # ReLU after pooling gives the same numbers as before it, for a quarter of the work.
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(64 * (height // 4) * (width // 4), n_features)
        self.output = nn.Linear(n_features, n_classes)
        # Channels last: on a CPU convolution and pooling are several times faster in this order.
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """Penultimate activations, after the ReLU: ``[N, n_features]`` of images ``[N, C, H, W]``."""
        return F.relu(self.hidden(self.convolutions(x.contiguous(memory_format=torch.channels_last))))

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``[..., n_classes]`` of features ``[..., n_features]``."""
        return self.output(features)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, n_classes]`` of images ``[N, C, H, W]`` in [-1, 1]."""
        return self.logits(self.features(x))


class ResidualClassifier(nn.Module):
    """A 3x3 convolution, two residual blocks that halve the picture and double the channels, their mean, and a linear
    layer: for small pictures in colour, such as CIFAR-10's.

    The blocks are torchvision's (He et al. 2015, figure 5, left), with batch normalisation.

    Args:
        shape: ``(C, H, W)`` of one image, H and W at least 4.
        n_classes: number of classes.
        n_features: channels of the last block, which are averaged over the picture; a multiple of 4.
    """

    def __init__(self, shape: tuple[int, int, int], n_classes: int, n_features: int = 128) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3  # a second to import

        channels, height, width = shape
        self.shape = (channels, height, width)
        self.n_classes = n_classes
        self.n_features = n_features
        self.test_accuracy = float("nan")

        def halve(c: int) -> BasicBlock:
            around = nn.Sequential(conv1x1(c, 2 * c, stride=2), nn.BatchNorm2d(2 * c))
            return BasicBlock(c, 2 * c, stride=2, downsample=around)

        c = n_features // 4
        self.convolutions = nn.Sequential(
            conv3x3(channels, c),
            nn.BatchNorm2d(c),
            nn.ReLU(inplace=True),
            halve(c),
            halve(2 * c),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.output = nn.Linear(n_features, n_classes)
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor) -> Tensor:
        """Mean activations of the last block: ``[N, n_features]``, not negative, of images ``[N, C, H, W]``."""
        return self.convolutions(x.contiguous(memory_format=torch.channels_last))

    def logits(self, features: Tensor) -> Tensor:
        """Logits ``[..., n_classes]`` of features ``[..., n_features]``."""
        return self.output(features)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, n_classes]`` of images ``[N, C, H, W]`` in [-1, 1]."""
        return self.logits(self.features(x))


class Stacked(nn.Module):
    """A digit classifier read channel by channel: 1,000 classes for RGB images of three digits.

    Class ``100 r + 10 g + b`` as in the stacked datasets; its logit is the sum of the three log-probabilities.

    Attributes:
        digits: the `Classifier` of one channel, with ten classes.
        shape, n_classes, n_features: as of `Classifier`; features are those of the channels one after another.
    """

    def __init__(self, digits: Classifier) -> None:
        super().__init__()
        if digits.shape[0] != 1 or digits.n_classes != 10:
            raise ValueError(
                "digits must classify one channel into 10 classes, "
                f"got {digits.shape[0]} channels and {digits.n_classes} classes"
            )
        self.digits = digits
        self.shape = (3, *digits.shape[1:])
        self.n_classes = 1000
        self.n_features = 3 * digits.n_features

    def features(self, x: Tensor) -> Tensor:
        """Features ``[N, 3 n_features of one channel]`` of images ``[N, 3, H, W]``."""
        return self.digits.features(x.reshape(-1, *self.digits.shape)).reshape(len(x), self.n_features)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities ``[N, 1000]`` of images ``[N, 3, H, W]`` in [-1, 1]."""
        return self.logits(self.features(x))

    def logits(self, features: Tensor) -> Tensor:
        """Log-probabilities ``[..., 1000]`` of features ``[..., n_features]``."""
        logits = self.digits.logits(features.unflatten(-1, (3, -1)))
        r, g, b = F.log_softmax(logits, -1).unbind(-2)
        return (r[..., :, None, None] + g[..., None, :, None] + b[..., None, None, :]).flatten(-3)


NETWORKS: Mapping[str, type[Classifier] | type[ResidualClassifier]] = {
    "plain": Classifier,
    "residual": ResidualClassifier,
}
"""What `gankit.classifiers.train` can train."""
