"""The report of a run: what notebooks/report.ipynb shows, and that notebook as one HTML file."""
