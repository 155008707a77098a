"""The artifact of "Can't Fool Me: Adversarially Robust Transformer for Video Understanding".

The library has four parts that stand alone: :mod:`artpaper.models`, :mod:`artpaper.losses`, :mod:`artpaper.attacks` and
:mod:`artpaper.metrics`. Everything else turns frame features into the paper's tables.
"""

__version__ = "0.1.0"
