"""The shapes and types that run through the library, named once. Videos of a batch are padded to one length, time."""

from collections.abc import Callable, Mapping

from jaxtyping import Bool, Float
from torch import Tensor

# frames as the model receives them, in the unit of the normalised features; a perturbation of them, or a gradient
Frames = Float[Tensor, "batch time dim"]
Mask = Bool[Tensor, "batch time"]  # True on real frames
LabelSets = Float[Tensor, "batch classes"]  # multi-hot
Logits = Float[Tensor, "batch classes"]
Scalar = Float[Tensor, ""]
PerVideo = Float[Tensor, " batch"]
Flags = Bool[Tensor, " batch"]
Maps = dict[str, Float[Tensor, "batch time time"]]  # head-averaged attention by modality, zero on padding
Heads = dict[str, Float[Tensor, "batch heads time time"]]
Classifier = Callable[[Tensor, Tensor], Tensor]  # model(x, mask) -> logits
Widths = Mapping[str, int]  # of the modalities along dim, by name and in order
