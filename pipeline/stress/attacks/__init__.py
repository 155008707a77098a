"""Its models, trainings and attacks."""
