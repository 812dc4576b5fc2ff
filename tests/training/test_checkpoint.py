"""Checkpoints: nested state with tensors, written to a safetensors file and read back."""

import pytest
import torch

from affekt.training.checkpoint import load_state, save_state


def test_state_is_read_back_bit_identical(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "epoch": 3, "none": None, "list": [1.5, torch.arange(3)], "on": True}
    save_state(state, tmp_path / "state.safetensors")
    loaded = load_state(tmp_path / "state.safetensors")
    assert loaded["epoch"] == 3
    assert loaded["none"] is None
    assert loaded["on"] is True
    assert torch.equal(loaded["list"][1], torch.arange(3))
    other = torch.optim.AdamW(model.parameters(), lr=9.9)
    other.load_state_dict(loaded["optimizer"])
    for moments, loaded_moments in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert all(torch.equal(moments[key], loaded_moments[key]) for key in moments)


def test_an_unsupported_type_is_refused(tmp_path):
    with pytest.raises(TypeError, match="cannot be stored in a checkpoint"):
        save_state({"object": object()}, tmp_path / "bad.safetensors")
