"""Its statistics, figures and statements."""
