"""One way in for everything that takes ``(model, x, y, mask)``: made right, or refused in words.

Label sets and masks may be bool, integers or floats of 0 and 1; frames may be of any floating type, made anywhere,
under :func:`torch.no_grad` or :func:`torch.inference_mode`. What can only mean a mistake is an error that names it.
The caller's tensors, the model's buffers and modes, every ``.grad`` and the random generators are left as they were.
"""

from artpaper.inputs.entry import Given, check_options, check_seen, entered
from artpaper.inputs.model import Guarded, warn, without_attention
from artpaper.inputs.tensors import fit_widths, frames_of, labels_of, own_widths, zero_one

__all__ = [
    "Given", "Guarded", "check_options", "check_seen", "entered", "fit_widths", "frames_of", "labels_of", "own_widths",
    "warn", "without_attention", "zero_one",
]  # fmt: skip
