"""A model that was made elsewhere, as attacks ask it: ``model(x, mask) -> logits``."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from artpaper.shapes import Frames, Mask, Widths


class Adapter(nn.Module):
    """A module that is called or answers in another way, made to take ``(x, mask)`` and give logits.

    Unlike a function that does the same, it says what it stands on: train mode is seen and told, batch statistics are
    kept, the type and the device of the parameters are known.

    Args:
        model: any module.
        call: ``call(model, x, mask)`` gives the logits (batch, classes); some that are asked for are

            - a mask that is True on padding: ``model(x, src_key_padding_mask=~mask)``;
            - lengths, of videos whose padding is at the end: ``model(x, mask.sum(dim=1))``;
            - a tuple, a dict or an object: ``model(x, mask)[0]``, ``model(x)["logits"]``, ``model(x).logits``.
        modalities: name and width of each modality along ``dim``, for balls and attacks of one modality.

    On a GPU, cuDNN's recurrent layers refuse to go back in eval mode; let ``call`` use
    ``torch.backends.cudnn.flags(enabled=False)``.
    """

    def __init__(
        self, model: nn.Module, call: Callable[[Any, Tensor, Tensor], Tensor], modalities: Widths | None = None
    ) -> None:
        super().__init__()
        self.model, self.call = model, call
        self.modalities = None if modalities is None else dict(modalities)
        self.training = model.training  # of itself alone: its parts keep their own modes

    def forward(self, x: Frames, mask: Mask) -> Any:
        """Whatever ``call`` gives; it is checked by those who ask."""
        return self.call(self.model, x, mask)
