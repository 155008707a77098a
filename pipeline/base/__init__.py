"""What every stage stands on: parameters, errors, locks, files written whole."""
