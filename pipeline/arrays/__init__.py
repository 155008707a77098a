"""One's own frame features: folders of arrays with labels.csv."""
