"""The synthetic data: its generator, and what that was fitted to."""
