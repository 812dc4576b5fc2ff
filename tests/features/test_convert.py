"""`affekt convert`: fairseq's wav2vec becomes a folder that the feature reads; other checkpoints become plain safetensors."""

import json
import os
import pickle
import sys
from argparse import Namespace
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from affekt.cli import app
from affekt.errors import BadConfig
from affekt.features.convert import convert_checkpoint
from affekt.features.wav2vec import Wav2Vec, Wav2VecArchitecture, Wav2VecConfig
from tests.sounds import noise

TINY = Wav2VecArchitecture(
    encoder=((6, 10, 5), (6, 8, 4), (6, 4, 2)), aggregator=((6, 2, 1), (4, 3, 1)), log_compression=False, bias=False
)
ARGUMENTS = Namespace(
    arch="wav2vec",
    conv_feature_layers="[(6, 10, 5), (6, 8, 4), (6, 4, 2)]",
    conv_aggregator_layers="[(6, 2, 1), (4, 3, 1)]",
    skip_connections_agg=True,
    residual_scale=0.5,
    log_compression=False,
    no_conv_bias=True,
    lr=[1e-07],
    save_dir="/checkpoints",
)


def network():
    torch.manual_seed(0)
    return Wav2Vec(Wav2VecConfig(architecture=TINY)).eval().requires_grad_(False)


def checkpoint(**changes):
    """Return a checkpoint as fairseq writes it: the model with its prediction layer, arguments, and training state."""
    model = {**network().state_dict(), "wav2vec_predictions.project_to_steps.bias": torch.zeros(6)}
    return {
        "args": ARGUMENTS,
        "model": {name: tensor.half() for name, tensor in model.items()},
        "optimizer_history": [{"criterion_name": "BinaryCrossEntropyCriterion", "num_updates": 7}],
        "extra_state": {"epoch": 3},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(5)}}},
        **changes,
    }


@pytest.mark.parametrize("changes", [{}, {"args": None, "cfg": {"model": vars(ARGUMENTS)}}], ids=["args", "cfg"])
def test_fairseqs_wav2vec_becomes_a_folder_that_is_read(tmp_path, changes):
    torch.save(checkpoint(**changes), tmp_path / "wav2vec.pt")
    target = tmp_path / "wav2vec" / "model.safetensors"
    target.parent.mkdir()
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "wav2vec.pt"), str(target), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["feature_extractor.conv_layers.0.0.weight"] == [6, 1, 10]
    ours = Wav2Vec.from_folder(target.parent, Wav2VecConfig())
    assert ours.config.architecture == TINY
    sound = torch.from_numpy(noise(3000))[None]
    torch.testing.assert_close(ours(sound).values, network().half().float()(sound).values, atol=0, rtol=0)
    assert not any("optimizer" in name for name in load_file(target))


def test_an_old_checkpoint_with_training_meters_is_converted_without_fairseq(tmp_path, monkeypatch):
    meters = ModuleType("fairseq.meters")
    kind = type("AverageMeter", (), {"__module__": "fairseq.meters"})
    vars(meters)["AverageMeter"], meter = kind, kind()
    meter.avg, meter.sum = 1.5, torch.ones(2)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fairseq", ModuleType("fairseq"))
        patch.setitem(sys.modules, "fairseq.meters", meters)
        torch.save(checkpoint(extra_state={"train_meters": {"train_loss": meter}}), tmp_path / "wav2vec.pt")
    shapes = convert_checkpoint(tmp_path / "wav2vec.pt", tmp_path / "model.safetensors")
    assert "feature_aggregator.conv_layers.1.1.weight" in shapes
    assert "fairseq" not in sys.modules


def test_another_networks_settings_are_not_overwritten(tmp_path):
    torch.save(checkpoint(), tmp_path / "wav2vec.pt")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadConfig, match=r"config\.json belongs to another network"):
        convert_checkpoint(tmp_path / "wav2vec.pt", tmp_path / "model.safetensors")
    assert (tmp_path / "config.json").read_text() == "{}"
    assert not (tmp_path / "model.safetensors").exists()
    (tmp_path / "config.json").unlink()
    for _ in range(2):  # the same conversion can be repeated
        convert_checkpoint(tmp_path / "wav2vec.pt", tmp_path / "model.safetensors")


def test_a_wav2vec_without_its_arguments_is_refused(tmp_path):
    torch.save(checkpoint(args=None), tmp_path / "wav2vec.pt")
    with pytest.raises(BadConfig, match="expected fairseq's args or cfg"):
        convert_checkpoint(tmp_path / "wav2vec.pt", tmp_path / "model.safetensors")


def test_other_checkpoints_keep_the_paths_of_their_tensors(tmp_path):
    content = {"args": Namespace(arch="other"), "model": {"layer.weight": torch.ones(2)}}
    torch.save(content, tmp_path / "other.pt")
    assert convert_checkpoint(tmp_path / "other.pt", tmp_path / "other.safetensors") == {"model/layer.weight": [2]}
    assert not (tmp_path / "config.json").exists()


def test_the_metadata_that_transformers_requires_is_written(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    convert_checkpoint(tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_of_a_foreign_checkpoint_are_converted(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"model": {"a": shared, "b": shared.T}, "step": 7}, tmp_path / "their.pt")
    shapes = convert_checkpoint(tmp_path / "their.pt", tmp_path / "ours.safetensors")
    assert shapes == {"model/a": [2, 3], "model/b": [3, 2]}
    assert torch.equal(load_file(tmp_path / "ours.safetensors")["model/b"], shared.T)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"model": Trap()}))
    with pytest.raises(BadConfig, match="without running code"):
        convert_checkpoint(tmp_path / "trap.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="does not exist"):
        convert_checkpoint(tmp_path / "nothing.pt", tmp_path / "out.safetensors")
    with pytest.raises(BadConfig, match=r"ending in \.safetensors"):
        convert_checkpoint(tmp_path / "nothing.pt", tmp_path / "out.bin")
    torch.save({"step": 1}, tmp_path / "empty.pt")
    with pytest.raises(BadConfig, match="contains no tensor"):
        convert_checkpoint(tmp_path / "empty.pt", tmp_path / "out.safetensors")
