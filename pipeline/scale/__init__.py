"""How work is spread: worker processes, and the machines of a Ray cluster."""
