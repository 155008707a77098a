"""From frame features to batches: what readers yield, label spaces, the frame store."""
