"""The library of "Can't Fool Me: Adversarially Robust Transformer for Video Understanding".

Models, losses, attacks and metrics stand alone: :mod:`artpaper.models`, :mod:`artpaper.losses`, :mod:`artpaper.attacks`
and :mod:`artpaper.metrics`. What turns frame features into the paper's tables is the package ``pipeline``, beside it.
"""

__version__ = "0.1.0"
