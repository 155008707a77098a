"""Defences beyond the paper: controls, published baselines, and defences that keep attention informative; one a file.

Each file holds a term, or a way to find adversaries; :func:`artpaper.losses.defended` puts them together as the
switches of :class:`artpaper.settings.Control` say. Uniform attention and temperature are the model's, not the loss's.
"""
