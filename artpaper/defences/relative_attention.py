"""Relative attention, this project's own term: flattening the maps gains nothing."""

from artpaper.shapes import Maps, PerVideo

FLOOR = 0.01  # added in squares to a map's distance to uniform (1 is the norm of the uniform map), for its gradient


def distance_to_uniform(clean: Maps) -> dict[str, PerVideo]:
    """||A - 1/T||_Fr of every video's map, by which A-ART's term is divided.

    That term falls when a map is flattened, whatever the adversary does; the ratio does not, for both norms shrink
    alike. With T real frames ||A - 1/T||^2 = ||A||^2 - 1, because every row sums to 1.

    Args:
        clean: head-averaged maps per modality, zero on padding.
    Returns:
        The distances per modality, above 0, their gradients finite everywhere.
    """
    squares = {name: maps.square().sum(dim=(-2, -1)) - 1 for name, maps in clean.items()}  # -1 without any frame
    return {name: (square.clamp(min=0) + FLOOR**2).sqrt() for name, square in squares.items()}
