"""The command line, and notebooks as stages."""
