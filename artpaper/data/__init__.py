"""From frame-level TFRecords to batches: reading, label spaces, the frame store, the synthetic source."""
