"""A fair trial of the claim on data with long time axes, by the rules of docs/trial.md."""
