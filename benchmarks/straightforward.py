"""The computations written down as usual code has them: what ours are measured against."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from artpaper.models import sinusoids
from artpaper.settings import Loss, Model


class StraightforwardEncoder(nn.Module):
    """One layer on PyTorch's own attention, which hands out the maps of all heads."""

    def __init__(self, config: Model, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.ffn = nn.Sequential(
            nn.Linear(width, config.ffn_multiple * width), nn.ReLU(), nn.Linear(config.ffn_multiple * width, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = x * x.shape[-1] ** 0.5  # model.scale_input
        x = self.dropout(x + sinusoids(x.shape[1], x.shape[2], x.device))
        attended, heads = self.attention(x, x, x, key_padding_mask=~mask, average_attn_weights=False)
        hidden = self.norms[0](x + self.dropout(attended))
        hidden = self.norms[1](hidden + self.dropout(self.ffn(hidden)))
        return hidden, heads.mean(dim=1) * (mask[:, :, None] & mask[:, None, :])


class StraightforwardTransformer(nn.Module):
    """The same model as :class:`artpaper.models.FrameTransformer` with its default choices (post-LN, mean pooling)."""

    def __init__(self, config: Model, modalities: dict[str, int], classes: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.encoders = nn.ModuleDict({name: StraightforwardEncoder(config, w) for name, w in modalities.items()})
        self.classifier = nn.Linear(sum(modalities.values()), classes)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        pooled, maps = [], {}
        for (name, encoder), part in zip(
            self.encoders.items(), x.split(list(self.modalities.values()), dim=-1), strict=True
        ):
            hidden, maps[name] = encoder(part, mask)
            pooled.append((hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True))
        return self.classifier(torch.cat(pooled, dim=-1)), maps


def three_pass_step(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, config: Loss) -> None:
    """Eq. 2 and section 2.2 as they are read: a pass for R, then one graph of clean and attacked videos."""
    frames = x.clone().requires_grad_()
    F.binary_cross_entropy_with_logits(model(frames, mask)[0], y).backward()
    gradient = frames.grad * mask[:, :, None]
    perturbation = config.epsilon * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None]
    model.zero_grad()
    clean, maps = model(x, mask)
    attacked, moved = model(x + perturbation, mask)
    loss = F.binary_cross_entropy_with_logits(clean, y)
    loss = loss + config.alpha * F.binary_cross_entropy_with_logits(attacked, y)
    for name in maps if config.beta else ():
        loss = loss + config.beta * torch.linalg.vector_norm(maps[name] - moved[name], dim=(1, 2)).mean()
    loss.backward()


def global_average_precision(scores: np.ndarray, labels: np.ndarray, top_k: int = 20) -> float:
    """GAP as google/youtube-8m computes it: a video at a time, a list of pairs, one sort, one loop."""
    pairs: list[tuple[float, bool]] = []
    total = 0
    for row, truth in zip(scores, labels, strict=True):
        best = np.argpartition(row, -min(top_k, len(row)))[-top_k:]
        pairs.extend((float(row[place]), bool(truth[place])) for place in best)
        total += int(truth.sum())
    pairs.sort(key=lambda pair: pair[0], reverse=True)
    found, precision = 0, 0.0
    for rank, (_, hit) in enumerate(pairs, start=1):
        if hit:
            found += 1
            precision += found / rank
    return precision / total
