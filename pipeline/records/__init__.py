"""Frame-level TFRecords of YouTube-8M and AudioSet."""
