"""What the paper's Table 2 says of the sizes of MSTR and its baseline."""

import pytest
import torch

from affekt.models import models


@pytest.mark.parametrize("name", ["mstr", "vanilla"])
@pytest.mark.parametrize(
    ("frames", "emotions", "parameters"), [(326, 4, 26_992_388), (224, 7, 25_321_991), (150, 6, 24_109_318)]
)
def test_parameters_are_those_of_table_2(name, frames, emotions, parameters):
    with torch.device("meta"):
        model = models[name](models[name].Config(frames=frames), emotions)
    assert sum(p.numel() for p in model.parameters()) == parameters
