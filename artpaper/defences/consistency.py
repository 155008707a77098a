"""Consistency: the answers to the clean and to the attacked video are to agree, whatever the labels.

TRADES (Zhang et al. 2019) lets gradients flow into both answers; VAT (Miyato et al. 2018) holds the clean one constant.
Both are for label sets here: Bernoulli labels in place of a softmax.
"""

from torch.nn import functional as F

from artpaper.shapes import Logits, PerVideo


def bernoulli_divergence(reference: Logits, logits: Logits) -> PerVideo:
    """KL(p || q) of independent Bernoulli labels, averaged over classes, in nats; p and q given by their logits.

    Args:
        reference: logits of p.
        logits: logits of q.
    Returns:
        One divergence a video, at least 0 but for rounding; gradients flow into both.
    """
    p = reference.sigmoid()
    divergence = p * (F.logsigmoid(reference) - F.logsigmoid(logits))
    divergence = divergence + (1 - p) * (F.logsigmoid(-reference) - F.logsigmoid(-logits))
    return divergence.mean(dim=-1)
