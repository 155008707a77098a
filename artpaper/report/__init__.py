"""From predictions files to what a reader sees: the paper's tables beside ours, and figures. No model runs here."""
