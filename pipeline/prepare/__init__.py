"""Stage prepare: from a source's files to the frame stores; downloads."""
