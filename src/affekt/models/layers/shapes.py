"""Types of the tensors that layers take.

Shapes are (batch, frames, dim) unless stated otherwise. A mask is True for real frames, which precede the padding. A mask of
None means that all frames are real, padding included, as in papers that use no masks.
"""

from jaxtyping import Bool, Float
from torch import Tensor

Frames = Float[Tensor, "batch frames dim"]
FrameMask = Bool[Tensor, "batch frames"]
ContextFrames = Float[Tensor, "batch keys key_dim"]  # another sequence, which supplies keys and values
KeyMask = Bool[Tensor, "batch keys"]

NEGATIVE = -1e9  # stands for minus infinity in a softmax: a window without any key must give numbers, not NaN
