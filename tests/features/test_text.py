"""Text encoders compared with transformers, on small networks with random weights and tokenizers trained here."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
)

from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.features import features
from affekt.features.text import word_indices_of
from tests.features.test_speech import load_feature, randomize

TEXTS = [
    "I can't believe it's over...",
    "Well-known  words,\tnaïve café 😀!",
    "Yes.",
    "“Don\u2019t you?” she asked, and then she asked again",
    "é",
]
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}


def word_pieces(folder):
    """Train a lower-casing BERT tokenizer on the texts and save its vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL["bert"], show_progress=False)
    tokenizer.train_from_iterator([text for text in TEXTS if text != "é"], trainer)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("\n".join(word for word, _ in vocabulary) + "\n", encoding="utf-8")


def byte_pairs(folder):
    """Train a RoBERTa tokenizer on the texts and save it."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        TEXTS, vocab_size=300, min_frequency=1, special_tokens=SPECIAL["roberta"], show_progress=False
    )
    tokenizer.save_model(str(folder))


FAMILY = {
    "bert": (BertConfig, BertModel, BertTokenizerFast, word_pieces, {"max_position_embeddings": 40}),
    "roberta": (
        RobertaConfig,
        RobertaModel,
        RobertaTokenizerFast,
        byte_pairs,
        {"max_position_embeddings": 66, "pad_token_id": 1, "type_vocab_size": 1},
    ),
}


def save_text_encoder(name, folder, **changes):
    """Save a small network of transformers with its tokenizer, and return the network."""
    config, network, tokenizer, train, settings = FAMILY[name]
    train(folder)
    torch.manual_seed(0)
    trained = tokenizer.from_pretrained(folder)
    trained.save_pretrained(folder)
    theirs = randomize(network(config(vocab_size=len(trained), **SIZES, **{**settings, **changes})))
    theirs.save_pretrained(folder)
    return theirs


@pytest.fixture(scope="module", params=FAMILY)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, save_text_encoder(request.param, folder)


def test_the_states_equal_those_of_transformers_for_one_text_and_a_batch(pair):
    name, folder, theirs = pair
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = load_feature(name, folder, blocks=(0, 1, -1))
    for texts in (TEXTS[:1], TEXTS):
        inputs = tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            states = theirs(**inputs, output_hidden_states=True).hidden_states
            ours = encoder(texts)
        assert torch.equal(ours.mask, inputs.attention_mask.bool())
        expected = torch.cat([states[block] for block in (0, 1, 3)], dim=2)
        torch.testing.assert_close(ours.values[ours.mask], expected[ours.mask], atol=1e-5, rtol=0)
    assert ours.frame_rate is None
    assert (encoder.dim, encoder.num_states) == (48, 3)


def test_a_batch_equals_one_by_one(pair):
    name, folder, _ = pair
    encoder = load_feature(name, folder)
    together = encoder(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = encoder([text])
        count = alone.values.shape[1]
        assert together.lengths()[row] == count
        torch.testing.assert_close(together.values[row, :count], alone.values[0], atol=1e-5, rtol=0)
        assert torch.equal(together.word_index[row, :count], alone.word_index[0])
        assert (together.values[row, count:] == 0).all()
        assert (together.word_index[row, count:] == -1).all()


def test_word_indices_point_to_the_word_of_each_token(pair):
    """The characters of each token occur in its word, and every word has a token, in order."""
    name, folder, _ = pair
    encoder = load_feature(name, folder, special=False)
    for text, words in zip(TEXTS, encoder.word_indices(TEXTS), strict=True):
        assert sorted(set(words) - {-1}) == list(range(len(text.split())))
        assert (np.diff(words[words >= 0]) >= 0).all()
        for token, word in zip(encoder.tokenizer.encode(text).offsets[1:-1], words, strict=True):
            spelled = text[slice(*token)].strip()
            assert spelled in text.split()[word] if spelled else word == -1


def test_word_indices_are_the_same_without_the_network(pair):
    name, folder, _ = pair
    for settings in ({}, {"special": False}, {"longest": 6}):
        encoder = load_feature(name, folder, **settings)
        stream = encoder(TEXTS)
        for row, words in enumerate(encoder.word_indices(TEXTS)):
            assert words.tolist() == stream.word_index[row, : stream.lengths()[row]].tolist()


def test_special_tokens_can_be_left_out_without_changing_the_others(pair):
    name, folder, _ = pair
    complete, without = load_feature(name, folder)(TEXTS), load_feature(name, folder, special=False)(TEXTS)
    assert (complete.lengths() - without.lengths()).tolist() == [2] * len(TEXTS)
    for row, count in enumerate(without.lengths().tolist()):
        torch.testing.assert_close(without.values[row, :count], complete.values[row, 1 : count + 1], atol=0, rtol=0)
        assert complete.word_index[row, 0] == complete.word_index[row, count + 1] == -1


def test_longest_includes_the_special_tokens_and_keeps_the_last_one(pair):
    name, folder, theirs = pair
    encoder = load_feature(name, folder, longest=6)
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS[:1], truncation=True, max_length=6, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs).last_hidden_state
    assert inputs.input_ids.shape == (1, 6)
    torch.testing.assert_close(encoder(TEXTS[:1]).values, expected, atol=1e-5, rtol=0)
    assert encoder.word_indices(TEXTS[:1])[0][-1] == -1


def test_a_text_beyond_the_networks_limit_is_refused_unless_it_is_truncated(pair):
    name, folder, _ = pair
    longest = {"bert": 40, "roberta": 64}[name]
    long = "Yes. " * 100
    with pytest.raises(BadConfig, match=rf"this {name} accepts at most {longest}: set longest = {longest}"):
        load_feature(name, folder)([long])
    assert load_feature(name, folder, longest=longest)([long]).values.shape[1] == longest
    with pytest.raises(BadConfig, match=rf"longest = {longest + 1}: this {name} accepts at most {longest} tokens"):
        load_feature(name, folder, longest=longest + 1)


def test_an_empty_text_has_its_special_tokens_or_is_refused(pair):
    name, folder, _ = pair
    stream = load_feature(name, folder)(["", "Yes."])
    assert stream.lengths()[0] == 2
    assert stream.word_index[0].tolist() == [-1] * stream.values.shape[1]
    with pytest.raises(BadConfig, match=r"'' has no token.* special = true"):
        load_feature(name, folder, special=False)(["Yes.", ""])


def test_settings_and_state_rebuild_network_and_tokenizer(pair):
    name, folder, _ = pair
    encoder = load_feature(name, folder, blocks=(1, 2), longest=9)
    kind = type(encoder)
    again = kind(decode(kind.Config, encode(encoder.config), "encoder")).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(TEXTS).values, encoder(TEXTS).values, atol=0, rtol=0)
    assert torch.equal(again(TEXTS).word_index, encoder(TEXTS).word_index)
    assert all(
        isinstance(value, torch.Tensor) for value in encoder.state_dict().values()
    )  # so that safetensors can store it


def test_the_encoder_is_frozen_and_its_input_is_text(pair):
    name, folder, _ = pair
    encoder = load_feature(name, folder)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.input == "text"


def test_the_tokenizer_determines_lower_casing(tmp_path):
    save_text_encoder("bert", tmp_path)
    encoder = load_feature("bert", tmp_path)
    torch.testing.assert_close(encoder(["YES."]).values, encoder(["yes."]).values, atol=0, rtol=0)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}), encoding="utf-8")
    cased = load_feature("bert", tmp_path)
    assert not torch.equal(cased(["YES."]).values[0, 1], cased(["yes."]).values[0, 1])


def test_words_are_separated_by_any_whitespace():
    text = "  a bc\u00a0d\n"
    assert text.split() == ["a", "bc", "d"]
    spans = [(0, 1), (2, 3), (3, 5), (5, 6), (4, 6), (7, 8), (0, 0)]
    assert word_indices_of(text, spans).tolist() == [-1, 0, 1, 1, 1, 2, -1]
    assert word_indices_of("", [(0, 0)]).tolist() == [-1]


def test_a_bert_with_the_oldest_parameter_names_is_loaded(tmp_path):
    """bert-base-uncased is published so: a prefix "bert.", gamma and beta for weight and bias, and the training head."""
    save_text_encoder("bert", tmp_path)
    config = BertConfig.from_pretrained(tmp_path)
    theirs = randomize(BertForMaskedLM(config))
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor.clone()
        for name, tensor in theirs.state_dict().items()
    }
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    inputs = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = theirs.bert(**inputs).last_hidden_state
    torch.testing.assert_close(load_feature("bert", tmp_path)(TEXTS[:1]).values, expected, atol=1e-5, rtol=0)


def test_missing_files_and_wrong_settings_are_named(tmp_path):
    with pytest.raises(BadConfig, match=r"bert needs folder, .* or checkpoint, its name on the hub"):
        load_feature("bert", None)
    with pytest.raises(BadConfig, match=r"has no checkpoint: expected config\.json, tokenizer\.json and model"):
        load_feature("bert", tmp_path)
    save_text_encoder("bert", tmp_path)
    with pytest.raises(BadConfig, match=r"contains a model of type 'bert'; expected 'roberta'"):
        load_feature("roberta", tmp_path)
    with pytest.raises(BadConfig, match=r"longest = 2: expected at least 3"):
        load_feature("bert", tmp_path, longest=2)
    with pytest.raises(BadConfig, match=r"blocks \[4\]: this bert has 0 to 3"):
        load_feature("bert", tmp_path, blocks=(4,))
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / name).unlink()
    with pytest.raises(
        BadConfig, match=r"has no tokenizer: add tokenizer\.json, or vocab\.txt, or vocab\.json and mer"
    ):
        load_feature("bert", tmp_path)


def test_a_tokenizer_from_its_vocabulary_alone_is_the_same(tmp_path):
    save_text_encoder("bert", tmp_path)
    expected = load_feature("bert", tmp_path)(TEXTS).values
    (tmp_path / "tokenizer.json").unlink()
    torch.testing.assert_close(load_feature("bert", tmp_path)(TEXTS).values, expected, atol=0, rtol=0)


def test_a_slow_tokenizer_is_refused(tmp_path, monkeypatch):
    save_text_encoder("bert", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: type("Slow", (), {"is_fast": False})())
        with pytest.raises(BadConfig, match=r"has a slow tokenizer \(Slow\).* add the tokenizer\.json"):
            load_feature("bert", tmp_path)


def test_another_networks_tokenizer_is_refused(tmp_path):
    save_text_encoder("bert", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(tmp_path / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    size = len(tensors[name]) - 1
    save_file(
        {**tensors, name: tensors[name][:size].clone()}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": size}), encoding="utf-8")
    with pytest.raises(BadConfig, match=rf"tokenizer has {size + 1} tokens, but this bert has {size}"):
        load_feature("bert", tmp_path)


@pytest.fixture(scope="module")
def minilm(minilm_folder):
    return features["minilm"].from_folder(minilm_folder, features["minilm"].Config())


def test_the_real_minilm_maps_tokens_to_words(minilm):
    text = "I can't believe, it's naïve café…"
    assert minilm.tokenizer.encode(text).tokens[1:4] == ["i", "can", "'"]
    assert minilm.word_indices([text])[0].tolist() == [-1, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 5, 5, -1]
    assert minilm.dim == 384


def test_the_real_minilm_finds_similar_sentences(minilm):
    """The mean over tokens is how this checkpoint was trained to compare sentences."""
    sentences = ["I am so happy today!", "Today makes me really glad.", "The train leaves at half past nine."]
    stream = minilm(sentences)
    means = (stream.values * stream.mask.unsqueeze(2)).sum(dim=1) / stream.lengths().unsqueeze(1)
    happy, glad, train = torch.nn.functional.normalize(means, dim=1)
    assert happy @ glad > 0.6
    assert happy @ train < 0.3
