"""Stage train: the loop, its checkpoints and its history."""
