"""What is true of every model that hears sound and reads words: it finds what is in neither alone.

The made corpus: every utterance has one of two cues in its sound and one of two among its words, wherever they come; its
emotion is whether the two agree. Each emotion holds both cues of either stream equally often.
"""

import pytest
import torch
import torch.nn.functional as F

from affekt.batch import Batch, Stream
from affekt.models import models
from tests.contracts.builders import TINY, synthetic_batch, tiny, without_chance

MULTIMODAL = [name for name in models if {"speech", "text"} <= set(models[name].streams)]
pytestmark = pytest.mark.parametrize("name", MULTIMODAL)

TRAINED, TESTED = 256, 200  # utterances
# 200 guesses at even odds: from 82 to 118 are right in 99 of 100 cases.
FEWEST, MOST = 82, 118
# How speech attends to words, and how words attend to speech, as the model calls it.
CROSS_ATTENTION = {
    "mcsan": ("cross_attention_speech", "cross_attention_text"),
    "tdfnet": ("attention_speech_to_text", "attention_text_to_speech"),
    "ks_transformer": ("cross_speech_vanilla", "cross_text_vanilla"),
}


def corpus(model, count, seed, silenced=None):
    """Utterances with both cues; the stream `silenced` is nothing but noise."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.arange(count)
    sides = {"speech": number % 2, "text": number // 2 % 2}
    streams = {name: noise(model, name, count, generator) for name in model.streams}
    for name, (cued, most) in {"speech": (6, 12), "text": (1, 4)}.items():
        if name != silenced:
            put_cue(streams[name].values, 2.0 * sides[name] - 1, cued, most, generator)
    return Batch(streams, labels=(sides["speech"] + sides["text"]) % 2)


def noise(model, name, count, generator):
    values = torch.randn(count, model.dims[name], generator=generator)
    if model.paper.frames[name] == 0:
        return Stream(values)
    shortest, longest = (12, 16) if name == "speech" else (4, 6)
    lengths = torch.randint(shortest, longest + 1, (count, 1), generator=generator)
    mask = torch.arange(longest) < lengths
    values = torch.randn(count, longest, model.dims[name], generator=generator)
    return Stream(0.1 * values * mask.unsqueeze(2), mask)


def put_cue(values, side, cued, most, generator):
    """Add the cue, +1 or -1 in every other feature, to `cued` frames somewhere among the first `most`."""
    starts = torch.randint(0, most - cued + 1, (len(values),), generator=generator)
    for utterance, start in enumerate(starts):
        values[utterance, start : start + cued, ::2] += 1.5 * side[utterance]


def right_answers(name, silenced=None):
    """How many of the test part a model gets right that was trained with that stream silenced, in both parts."""
    torch.manual_seed(0)
    model = models[name](models[name].Config(**{**TINY[name], **without_chance(name)}), 2)
    train = corpus(model, TRAINED, seed=1, silenced=silenced)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = F.cross_entropy(model(train), train.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = corpus(model, TESTED, seed=2, silenced=silenced)
    with torch.inference_mode():
        return int((model.eval()(test).argmax(dim=1) == test.labels).sum())


@pytest.mark.parametrize("silenced", ["speech", "text"])
def test_one_stream_alone_stays_at_chance(name, silenced):
    assert FEWEST <= right_answers(name, silenced) <= MOST


def test_sound_and_words_together_tell_the_emotion(name):
    assert right_answers(name) >= 0.95 * TESTED


def test_each_side_attends_to_what_the_other_really_has(name):
    model = tiny(name)
    batch = synthetic_batch(model, [20, 14, 5])
    found = model.explain(batch)
    for key in CROSS_ATTENTION[name]:
        for index in range(len(batch)):
            alone = model.explain(batch[index])[key][0]
            here = found[key][index, ..., : alone.shape[-2], : alone.shape[-1]]
            torch.testing.assert_close(here.sum(dim=-1), torch.ones_like(here[..., 0]), atol=1e-9, rtol=0)
            torch.testing.assert_close(here, alone, atol=1e-9, rtol=0)
