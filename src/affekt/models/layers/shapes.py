"""Names for what layers take. Shapes are (batch, frames, dim) unless said otherwise; a mask is True where there is a frame,
and frames stand first. A mask of None means that every frame is real, padding included: the papers' reading."""

from jaxtyping import Bool, Float
from torch import Tensor

Sequence = Float[Tensor, "batch frames dim"]
Mask = Bool[Tensor, "batch frames"]
Context = Float[Tensor, "batch keys key_dim"]  # another sequence, which attention may take its keys of
KeyMask = Bool[Tensor, "batch keys"]

NEGATIVE = -1e9  # stands for minus infinity in a softmax: a window without any key must give numbers, not NaN
