"""Every model of speech and text learns emotions that neither stream alone determines.

In the synthetic corpus, every utterance has one of two cues in its speech and one of two in its text, at any position; its
emotion is whether the two agree. Each emotion has both cues of either stream equally often.
"""

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.models import models
from tests.contracts.builders import synthetic_batch, tiny, tiny_config, without_dropout

MULTIMODAL = [name for name in models if {"speech", "text"} <= set(models[name].streams)]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("name", MULTIMODAL)]

NUM_TRAIN, NUM_TEST = 128, 200  # utterances
# Of 200 random guesses, 82 to 118 are right in 99 of 100 cases.
CHANCE_MIN, CHANCE_MAX = 82, 118


def synthetic_corpus(model, count, seed, silenced=None):
    """Return utterances with both cues; the stream `silenced` is only noise."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(count)
    cues = {"speech": number % 2, "text": number // 2 % 2}
    streams = {name: noise(model, name, count, generator) for name in model.streams}
    for name, (cue_frames, max_frames) in {"speech": (6, 12), "text": (1, 4)}.items():
        if name != silenced:
            put_cue(streams[name].values, 2.0 * cues[name] - 1, cue_frames, max_frames, generator)
    return Batch(streams, labels=(cues["speech"] + cues["text"]) % 2)


def noise(model, name, count, generator):
    values = torch.randn(count, model.dims[name], generator=generator)
    if model.paper.frames[name] == 0:
        return Stream(values)
    shortest, longest = (12, 16) if name == "speech" else (4, 6)
    lengths = torch.randint(shortest, longest + 1, (count, 1), generator=generator)
    mask = torch.arange(longest) < lengths
    values = torch.randn(count, longest, model.dims[name], generator=generator)
    return Stream(0.1 * values * mask.unsqueeze(2), mask)


def put_cue(values, side, cue_frames, max_frames, generator):
    """Add the cue, +1 or -1 in every other feature, to `cue_frames` consecutive frames somewhere among the first
    `max_frames`."""
    starts = torch.randint(0, max_frames - cue_frames + 1, (len(values),), generator=generator)
    for utterance, start in enumerate(starts):
        values[utterance, start : start + cue_frames, ::2] += 1.5 * side[utterance]


def num_correct(name, silenced=None, steps=80):
    """Train and test a model with one stream silenced; return how many test utterances it gets right."""
    torch.manual_seed(0)
    model = models[name](without_dropout(tiny_config(name)), 2)
    train = synthetic_corpus(model, NUM_TRAIN, seed=1, silenced=silenced)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = F.cross_entropy(model(train), train.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = synthetic_corpus(model, NUM_TEST, seed=2, silenced=silenced)
    with torch.inference_mode():
        return int((model.eval()(test).argmax(dim=1) == test.labels).sum())


@pytest.mark.parametrize("silenced", ["speech", "text"])
def test_one_stream_alone_stays_at_chance(name, silenced):
    assert CHANCE_MIN <= num_correct(name, silenced, steps=50) <= CHANCE_MAX


def test_both_streams_together_determine_the_emotion(name):
    assert num_correct(name) >= 0.95 * NUM_TEST


def test_each_stream_attends_only_to_the_real_frames_of_the_other(name):
    model = tiny(name)
    cross = [a.weights for a in model.explained_attention.values() if a.queries != a.keys]
    if not cross:
        pytest.skip(f"{name} names no cross-attention")
    batch = synthetic_batch(model, [20, 14, 5])
    explanation = model.explain(batch)
    for key in cross:
        for index in range(len(batch)):
            alone = model.explain(batch[index])[key][0]
            weights = explanation[key][index, ..., : alone.shape[-2], : alone.shape[-1]]
            torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]), atol=1e-9, rtol=0)
            torch.testing.assert_close(weights, alone, atol=1e-9, rtol=0)
