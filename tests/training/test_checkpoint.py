"""State on disk, ours and other people's."""

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file

from affekt.errors import BadConfig
from affekt.features.convert import convert_checkpoint
from affekt.training.checkpoint import load_state, save_state


def test_state_comes_back_to_the_last_bit(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "epoch": 3, "none": None, "list": [1.5, torch.arange(3)], "on": True}
    save_state(state, tmp_path / "state.safetensors")
    again = load_state(tmp_path / "state.safetensors")
    assert again["epoch"] == 3
    assert again["none"] is None
    assert again["on"] is True
    assert torch.equal(again["list"][1], torch.arange(3))
    other = torch.optim.AdamW(model.parameters(), lr=9.9)
    other.load_state_dict(again["optimizer"])
    for one, two in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(TypeError, match="cannot be stored in a checkpoint"):
        save_state({"object": object()}, tmp_path / "bad.safetensors")


def test_a_foreign_checkpoint_gives_its_tensors(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"model": {"a": shared, "b": shared.T}, "step": 7}, tmp_path / "their.pt")
    shapes = convert_checkpoint(tmp_path / "their.pt", tmp_path / "ours.safetensors")
    assert shapes == {"model/a": [2, 3], "model/b": [3, 2]}
    assert torch.equal(load_file(tmp_path / "ours.safetensors")["model/b"], shared.T)


def test_what_a_checkpoint_would_run_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"model": Trap()}))
    with pytest.raises(BadConfig, match="without running code"):
        convert_checkpoint(tmp_path / "trap.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_no_checkpoint_is_said(tmp_path):
    with pytest.raises(BadConfig, match="does not exist"):
        convert_checkpoint(tmp_path / "nothing.pt", tmp_path / "out.safetensors")
    with pytest.raises(BadConfig, match=r"ending in \.safetensors"):
        convert_checkpoint(tmp_path / "nothing.pt", tmp_path / "out.bin")
    torch.save({"step": 1}, tmp_path / "empty.pt")
    with pytest.raises(BadConfig, match="contains no tensor"):
        convert_checkpoint(tmp_path / "empty.pt", tmp_path / "out.safetensors")
