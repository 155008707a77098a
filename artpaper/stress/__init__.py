"""The paper's claim under strong attacks: controls trained at equal cost, every attack on every model, many seeds."""
