"""The frame Transformer: one encoder layer per modality, masked pooling, one linear classifier (section 3.1).

The paper gives "a single layer of multi-head attention with 8 attention heads for each of audio and video modalities";
the rest follows its reference [15], Vaswani et al. 2017, and is a choice in :class:`artpaper.settings.Model`.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from artpaper.settings import Model
from artpaper.shapes import Frames, Heads, Logits, Maps, Mask, Widths

ALIVE = 2**23  # numbers in the maps of all heads that are alive at once on a CPU: 32 MiB


class FrameTransformer(nn.Module):
    """Multi-label video classifier over frame features.

    Args:
        config: architecture choices.
        modalities: name and width of each modality, in the order of the columns of ``x``.
        classes: number of labels K.
    Raises:
        ValueError: a width is not divisible by the number of heads, or sinusoidal positions meet an odd width.
    Source: section 3.1; Vaswani et al. 2017, sections 3.1-3.5 and 5.4.
    """

    def __init__(self, config: Model, modalities: Widths, classes: int) -> None:
        super().__init__()
        self.config = config
        self.modalities = dict(modalities)
        self.classes = classes
        self.encoders = nn.ModuleDict({name: Encoder(config, width) for name, width in self.modalities.items()})
        self.classifier = nn.Linear(sum(encoder.dim for encoder in self._encoders().values()), classes)

    def forward(self, x: Frames, mask: Mask, return_attention: bool = False) -> Logits | tuple[Logits, Maps]:
        """Classify a batch of videos.

        Without the maps PyTorch's fused attention is used, which cannot be differentiated twice; where that is wanted,
        ask under ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

        Args:
            x: frames, the modalities side by side along ``dim`` (unit of the normalised features).
            mask: True on real frames.
            return_attention: also return the attention maps.
        Returns:
            Logits, or logits and one map per modality: the mean over heads (the paper's A), each row of a real frame
            summing to 1, rows and columns of padding exactly 0.
        Raises:
            ValueError: ``dim`` is not the sum of the modalities' widths.
        """
        pooled, maps = [], {}
        for name, part in self._split(x).items():
            hidden, averaged = self._encoders()[name](part, mask, return_attention)  # (B, T, d), (B, T, T)
            pooled.append(pool(hidden, mask, self.config.pooling))  # (B, d)
            if return_attention:
                maps[name] = averaged
        logits = self.classifier(torch.cat(pooled, dim=-1)).to(x.dtype)  # (B, K), full precision under autocast too
        return (logits, maps) if return_attention else logits

    def attention_heads(self, x: Frames, mask: Mask) -> Heads:
        """The attention map of every head, per modality, before they are averaged; otherwise as :meth:`forward`.

        Raises:
            ValueError: ``dim`` is not the sum of the modalities' widths.
        """
        return {name: self._encoders()[name].attention(part, mask) for name, part in self._split(x).items()}

    def _encoders(self) -> dict[str, "Encoder"]:
        return dict(self.encoders.items())  # type: ignore[arg-type]

    def _split(self, x: Tensor) -> dict[str, Tensor]:
        widths = list(self.modalities.values())
        if x.shape[-1] != sum(widths):
            raise ValueError(f"x has {x.shape[-1]} features a frame, the model takes {self.modalities}")
        return dict(zip(self.modalities, x.split(widths, dim=-1), strict=True))


class Encoder(nn.Module):
    """One Transformer encoder layer for one modality, whose frames have ``width`` features.

    The layer is as wide, unless ``config.projection`` gives another width.

    Raises:
        ValueError: the layer's width is not divisible by the number of heads, or odd with sinusoidal positions.
    Source: Vaswani et al. 2017, sections 3.1-3.5 and 5.4; what the paper leaves open is a key of group ``model``.
    """

    def __init__(self, config: Model, width: int) -> None:
        super().__init__()
        self.dim = config.width(width)
        self.config = config
        self.project = nn.Linear(width, self.dim) if config.projection else nn.Identity()
        # uniform attention has no use for queries and keys, so it owns none
        self.query_key = None if config.attention == "uniform" else nn.Linear(self.dim, 2 * self.dim)
        if self.query_key is not None and config.attention == "random":
            _freeze(self.query_key)
        self.value = nn.Linear(self.dim, self.dim)
        self.output = nn.Linear(self.dim, self.dim)
        hidden = config.ffn_multiple * self.dim
        layers = (nn.Linear(self.dim, hidden), nn.ReLU(), nn.Linear(hidden, self.dim)) if hidden else ()
        self.ffn = nn.Sequential(*layers) if hidden else None
        norm = nn.Identity if config.layer_norm == "none" else nn.LayerNorm
        self.norms = nn.ModuleList([norm(self.dim) for _ in range(2 if hidden else 1)])
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Mask, return_attention: bool = False
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch time time"] | None]:
        """The hidden states of one modality's frames and, if asked for, the attention map averaged over heads.

        Args:
            x: its frames, unit of the normalised features.
            mask: True on real frames.
            return_attention: also return the attention map.
        Returns:
            Both, or the hidden states and None.
        """
        embedded = self.dropout(self._embed(x))  # (B, T, d)
        attended, averaged = self._attend(self._before(0, embedded), mask, return_attention)
        hidden = self._after(0, embedded, self.output(attended))
        if self.ffn is not None:
            hidden = self._after(1, hidden, self.ffn(self._before(1, hidden)))
        return hidden, averaged

    def attention(self, x: Float[Tensor, "batch time width"], mask: Mask) -> Float[Tensor, "batch heads time time"]:
        """The attention map of every head, alone."""
        hidden = self._before(0, self.dropout(self._embed(x)))
        return self._heads(self._queries_and_keys(hidden), mask)

    def _queries_and_keys(self, hidden: Tensor) -> Tensor:
        """Side by side (B, T, 2d); uniform attention, which has none, is given its input back."""
        if self.query_key is None:
            return hidden
        if self.config.attention == "position":
            codes = sinusoids(hidden.shape[1], self.dim, hidden.device).to(hidden.dtype)  # (T, d)
            return self.query_key(codes).expand(len(hidden), -1, -1)
        return self.query_key(hidden)

    def _embed(self, x: Tensor) -> Tensor:
        embedded = self.project(x)  # (B, T, d)
        if self.config.scale_input:  # so that unit-norm frames are not drowned by the positions (Vaswani, section 3.4)
            embedded = embedded * self.dim**0.5
        if self.config.positions == "sinusoidal":
            embedded = embedded + sinusoids(x.shape[1], self.dim, x.device).to(embedded.dtype)  # (T, d)
        return embedded

    def _attend(self, hidden: Tensor, mask: Tensor, with_map: bool) -> tuple[Tensor, Tensor | None]:
        """What the heads bring together (B, T, d) and their mean map (B, T, T), with few of their maps alive at a time.

        Without the map none is made. With it, on a CPU, where all together are large, maps are made for some videos at
        a time and once more on the way back; elsewhere for one head at a time.
        """
        value = self.value(hidden)
        if self.query_key is None:  # equal weights bring every frame the same: the mean
            mean = pool(value, mask, "mean")[:, None].expand_as(value)
            return mean, self._heads(hidden, mask)[:, 0] if with_map else None
        given = (self._queries_and_keys(hidden), value, mask)
        if not with_map or _fuses(hidden.device):
            return self._fused(*given, with_map)
        size = max(1, ALIVE // (self.config.heads * hidden.shape[1] ** 2))  # videos
        if len(hidden) <= size:
            return self._mix(*given)
        parts = [
            checkpoint(self._mix, *part, use_reentrant=False, preserve_rng_state=False)
            for part in zip(*(tensor.split(size) for tensor in given), strict=True)
        ]
        attended, maps = zip(*parts, strict=True)
        return torch.cat(attended), torch.cat(maps)

    def _mix(self, query_key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        weights = self._weights(query_key, mask)  # (B, H, T, T)
        value = value.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)  # (B, H, T, d/H)
        attended = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(-2)  # (B, T, d)
        return attended, weights.mean(dim=1) * _pairs(mask)

    def _fused(self, query_key: Tensor, value: Tensor, mask: Tensor, with_map: bool) -> tuple[Tensor, Tensor | None]:
        """The same by PyTorch's attention, which keeps no maps; and the map, if it is asked for."""
        query, key, bias, scale = self._scored(query_key, mask)
        value = value.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)  # (B, H, T, d/H)
        attended = F.scaled_dot_product_attention(query, key, value, bias[:, None, None], scale=scale)
        attended = attended.transpose(1, 2).flatten(-2)  # (B, T, d)
        if not with_map:
            return attended, None
        summed = torch.zeros((), dtype=_full(query), device=query.device)
        for each in zip(query.unbind(1), key.unbind(1), strict=True):
            summed = summed + checkpoint(_map, *each, bias, scale, use_reentrant=False, preserve_rng_state=False)
        return attended, summed / self.config.heads * _pairs(mask)  # (B, T, T)

    def _scored(self, query_key: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """Queries and keys of every head, each (B, H, T, d/H); what is added to the scores (B, T), and their scale."""
        query, key = query_key.unflatten(-1, (2, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
        # not -inf, nor what a score could make -inf: a row without any real frame would turn into NaN
        bias = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min / 2)
        return query, key, bias, 1 / (query.shape[-1] ** 0.5 * self.config.temperature)

    def _weights(self, query_key: Tensor, mask: Tensor) -> Tensor:
        """The map of every head (B, H, T, T), rows of padding included."""
        query, key, bias, scale = self._scored(query_key, mask)
        heads = self.config.heads
        weights = _map(query.flatten(0, 1), key.flatten(0, 1), bias.repeat_interleave(heads, dim=0), scale)
        return weights.unflatten(0, (-1, heads))

    def _heads(self, query_key: Tensor, mask: Tensor) -> Tensor:
        pairs = _pairs(mask)[:, None]
        if self.query_key is None:
            equal = pairs.to(_full(query_key)) / mask.sum(dim=1).clamp(min=1)[:, None, None, None]
            return equal.expand(-1, self.config.heads, -1, -1)
        return self._weights(query_key, mask) * pairs  # exact 0 in rows of padding, as in its columns

    def _before(self, index: int, hidden: Tensor) -> Tensor:
        return self.norms[index](hidden) if self.config.layer_norm == "pre" else hidden

    def _after(self, index: int, hidden: Tensor, update: Tensor) -> Tensor:
        hidden = hidden + self.dropout(update)
        return self.norms[index](hidden) if self.config.layer_norm == "post" else hidden


def pool(hidden: Frames, mask: Mask, how: str) -> Float[Tensor, "batch dim"]:
    """The "mean" or the "max" over the real frames, as ``how`` says, in any unit; a video without any gives 0.

    Args:
        hidden: what is pooled.
        mask: True on real frames.
        how: "mean" or "max".
    Raises:
        ValueError: ``how`` is neither.
    """
    if how not in ("mean", "max"):
        raise ValueError(f"how is 'mean' or 'max', not {how!r}")
    real = mask[:, :, None]
    if how == "max":
        best = hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(dim=1)
        return best * mask.any(dim=1, keepdim=True)
    return (hidden * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


@lru_cache(maxsize=64)
def sinusoids(time: int, dim: int, device: torch.device) -> Float[Tensor, "time dim"]:
    """Position codes: sines on even, cosines on odd features; the last 64 tables asked for are kept.

    Args:
        time: number of positions, from 0.
        dim: width of a code, even.
        device: where the codes are made.
    Source: Vaswani et al. 2017, section 3.5.
    """
    with torch.inference_mode(False):  # what is kept from there could not be trained on
        position = torch.arange(time, device=device, dtype=torch.float64)[:, None]
        rate = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float64) * (-math.log(10_000.0) / dim))
        return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=-1).flatten(-2).float()


def _fuses(device: torch.device) -> bool:
    """Whether maps are made beside a kernel that keeps none: on an accelerator, which waits for its memory."""
    return device.type != "cpu"


def _pairs(mask: Tensor) -> Tensor:
    """Where both frames are real (B, T, T)."""
    return mask[:, :, None] & mask[:, None, :]


def _map(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    """One head's map (B, T, T), rows of padding included, of its queries and keys (B, T, d/H)."""
    scores = torch.baddbmm(bias[:, None], query, key.transpose(-1, -2), alpha=scale)
    return scores.softmax(dim=-1, dtype=_full(scores))


def _freeze(layer: nn.Linear) -> None:
    """Keep a layer as it was drawn: saved with the model, and none of its parameters."""
    for name in ("weight", "bias"):
        drawn = getattr(layer, name).detach()
        delattr(layer, name)
        layer.register_buffer(name, drawn)


def _full(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
