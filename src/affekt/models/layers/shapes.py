"""Types of the inputs and outputs of layers.

Shapes are (batch, frames, dim) unless stated otherwise. A mask is True for real frames, which precede the padding. A mask of
None means that all frames are real, padding included, as in papers that use no masks.
"""

from jaxtyping import Bool, Float
from torch import Tensor

Frames = Float[Tensor, "batch frames dim"]
FrameMask = Bool[Tensor, "batch frames"]
ContextFrames = Float[Tensor, "batch keys key_dim"]  # another sequence, which supplies keys and values
KeyMask = Bool[Tensor, "batch keys"]

# Used instead of minus infinity in a softmax, which would give NaN for a query without any key.
NEGATIVE = -1e9
