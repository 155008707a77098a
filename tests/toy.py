"""Small models and batches that several tests share."""

import torch
from torch import Tensor, nn

from artpaper.losses import Parts
from artpaper.models import FrameTransformer
from artpaper.settings import Model

MODALITIES = {"rgb": 16, "audio": 8}
CLASSES = 12


def model(seed: int = 0, dtype: torch.dtype = torch.float32, **choices: object) -> FrameTransformer:
    """A two-modality frame Transformer without dropout, in eval mode."""
    torch.manual_seed(seed)
    config = Model(**{"heads": 4, "dropout": 0.0, **choices})
    return FrameTransformer(config, MODALITIES, CLASSES).to(dtype).eval()


def batch(
    videos: int = 6, time: int = 9, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Frames (zero on padding), label sets and mask of videos of different lengths, one of them of a single frame."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, time + 1, (videos,), generator=generator)
    lengths[0], lengths[-1] = time, 1
    mask = torch.arange(time) < lengths[:, None]
    x = torch.randn(videos, time, sum(MODALITIES.values()), generator=generator, dtype=dtype) * mask[:, :, None]
    y = (torch.rand(videos, CLASSES, generator=generator) < 0.25).to(dtype)
    y[torch.arange(videos), torch.randint(CLASSES, (videos,), generator=generator)] = 1
    return x, y, mask


def numbers(parts: Parts) -> dict[str, float]:
    """What a loss says of itself, fetched."""
    return {name: float(part) for name, part in parts.items()}


class Linear(nn.Module):
    """Masked mean pooling and one linear layer: everything about it can be worked out on paper."""

    def __init__(self, dim: int, classes: int, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, dim, dtype=torch.float64))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        pooled = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return pooled @ self.weight.T.to(x.dtype)
