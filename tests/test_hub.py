"""Checkpoints from Python: loading them, and what their latents are."""

from __future__ import annotations

import json
import logging
from argparse import Namespace

import numpy as np
import pytest
import torch
from helpers import commands, gpt2
from helpers.models import build

from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import build_bpe, load_model, pick_device
from fairseq_vat.hub.packing import pack
from fairseq_vat.latent.gaussian import DiagonalGaussian
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.text import subwords

SENTENCES = ["w1 w2 w3 w4 w5 w6 w7", "w9", "w3 w3 w8 w0 w1", "w5 w6", "", "w9"]


def assert_close(one, other):
    torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), atol=2e-6, rtol=2e-5)


def test_load_model_gives_what_the_training_saved(data_dir, checkpoint):
    loaded = load_model(checkpoint, data_dir, "cpu", truncate=True, max_source_positions=9)
    assert not loaded.model.training
    assert loaded.device == torch.device("cpu")
    assert loaded.model.num_updates == 150
    assert loaded.cfg.criterion.kl_weight == 0.01
    assert loaded.task.cfg.truncate
    assert loaded.task.max_positions()[0] == 9
    saved = commands.parameters(checkpoint)
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, saved[name]), name


def test_load_model_refuses_settings_that_do_not_exist(data_dir, checkpoint):
    with pytest.raises(TypeError, match="no setting 'trunkate'"):
        load_model(checkpoint, data_dir, trunkate=True)


def test_flags_of_generation_in_a_checkpoint_do_not_count(data_dir, checkpoint, tmp_path):
    """fairseq keeps them, and what asks for the mean would draw."""
    state = torch.load(checkpoint, weights_only=True)
    state["cfg"]["task"] |= {"latent_sampling": True, "latent_temperature": 8.0}
    state["cfg"]["task"] |= {"latent_samples": 3, "latent_marks": "[]"}
    torch.save(state, tmp_path / "drawing.pt")
    plain, drawing = (
        VATModel.from_pretrained(path.parent, path.name, str(data_dir), device="cpu")
        for path in (checkpoint, tmp_path / "drawing.pt")
    )
    assert drawing.reconstruct(SENTENCES, beam=2) == plain.reconstruct(SENTENCES, beam=2)
    settings = {"samples": 2, "temperature": 3.0, "beam": 2}
    assert drawing.sample(SENTENCES, **settings) == plain.sample(SENTENCES, **settings)
    assert drawing.decode(drawing.encode(["w1 w2"]), beam=2) == plain.reconstruct(["w1 w2"], beam=2)
    with pytest.raises(TypeError, match="latent_sampling: give it to what generates"):
        load_model(checkpoint, data_dir, latent_sampling=True)


def test_padding_written_as_a_word_is_no_latent(vat):
    latents = vat.encode(["w1 <pad> w2", "w1 w2"])
    assert latents.mask.sum(dim=1).tolist() == [4, 4]
    (sample,) = vat.batches(["w1 <pad> w2"])
    out = vat.model.encoder(sample["net_input"]["src_tokens"])
    mean_PL = vat.model.encoder.posterior(out).mean[:, 0].detach()
    assert_close(latents.mean[0], mean_PL[[0, 1, 3, 4]])


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "give cpu, cuda, or cuda:N"), ("cuda:0", "no CUDA device here")]
)
def test_a_device_that_is_not_there(device, message):
    if device != "gpu" and torch.cuda.is_available():
        pytest.skip("says what happens without a CUDA device, and there is one")
    with pytest.raises(VATError, match=message):
        pick_device(device)


def test_files_that_are_no_checkpoint(data_dir, checkpoint, tmp_path):
    (tmp_path / "cut.pt").write_bytes(checkpoint.read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("root:x:0:0:root:/root:/bin/bash\n", encoding="utf-8")
    torch.save(commands.parameters(checkpoint), tmp_path / "bare.pt")
    for name, message in {
        "none.pt": "doesn't exist: give one, or the folder of one",
        ".": "is a folder",
        "cut.pt": "cut off",
        "text.pt": "is no checkpoint of fairseq's",
        "bare.pt": "is no checkpoint of fairseq's",
    }.items():
        with pytest.raises(VATError) as caught:
            load_model(tmp_path / name, data_dir)
        assert str(tmp_path / name) in str(caught.value)
        assert message in str(caught.value)


def test_another_dictionary_and_no_data_directory(data_dir, checkpoint, tmp_path):
    with pytest.raises(VATError, match=r"has no dict\.txt"):
        load_model(checkpoint, tmp_path)
    lines = (data_dir / "dict.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "dict.txt").write_text("\n".join(reversed(lines)) + "\n", encoding="utf-8")
    with pytest.raises(VATError, match="not the dictionary the checkpoint was trained with"):
        load_model(checkpoint, tmp_path)


def test_a_checkpoint_without_a_dictionary_takes_the_one_beside_it(data_dir, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    state["task_state"] = {}
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(VATError, match="holds no dictionary"):
        load_model(tmp_path / "model.pt")
    (tmp_path / "dict.txt").write_bytes((data_dir / "dict.txt").read_bytes())
    dictionary = load_model(tmp_path / "model.pt").task.source_dictionary
    assert dictionary == load_model(checkpoint).task.source_dictionary
    with pytest.raises(VATError, match=r"model\.pt: the checkpoint holds no dictionary"):
        pack(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_fairseq_s_own_model_is_named(data_dir, tmp_path):
    flags = ("--arch", "transformer_tiny", "--criterion", "cross_entropy", "--max-update", "1")
    commands.train(data_dir, tmp_path, *flags)
    with pytest.raises(VATError, match=r"architecture 'transformer_tiny'.*such as vat_transformer"):
        load_model(tmp_path / "checkpoint_last.pt", data_dir)


def test_a_language_model_has_no_latents(data_dir):
    flags = ("--arch", "transformer_decoder_lm", "--decoder-embed-dim", "16")
    task, model, _ = build(data_dir, *flags)
    with pytest.raises(VATError, match="language model's, which has no latents"):
        VATHubInterface(None, task, model)


def test_encode_is_the_encoder_s_posterior(vat):
    mean, logvar, mask = vat.encode(SENTENCES)
    assert mean.shape == logvar.shape == (6, 9, 16)  # start token, 7 words, end of sentence
    assert mask.sum(dim=1).tolist() == [9, 3, 7, 4, 2, 3]
    index = vat.task.source_dictionary.index
    words = [vat.task.source_dictionary.bos(), *(index(f"w{i}") for i in (3, 3, 8, 0, 1))]
    tokens = torch.tensor([[*words, vat.task.source_dictionary.eos()]])
    with torch.no_grad():
        out = vat.model.encoder(tokens, torch.tensor([7]))
    assert_close(mean[2, :7], out["latent_mean"][0][:, 0])
    assert_close(logvar[2, :7], out["latent_logvar"][0][:, 0])
    assert mean[~mask].eq(0).all()
    assert not mean.requires_grad


@pytest.mark.parametrize("max_tokens", [1, 10, 10_000])
def test_results_do_not_depend_on_the_batch(vat, max_tokens):
    other = VATHubInterface(vat.cfg, vat.task, vat.model, max_tokens=max_tokens)
    mean, logvar, mask = other.encode(SENTENCES)
    pooled = other.embed(SENTENCES)
    for row, sentence in enumerate(SENTENCES):
        alone = vat.encode([sentence])
        length = alone.mask.size(1)
        assert mask[row].sum() == length
        assert_close(mean[row, :length], alone.mean[0])
        assert_close(logvar[row, :length], alone.logvar[0])
        assert_close(pooled[row], vat.embed([sentence])[0])


@pytest.mark.parametrize("pooling", ["mean", "sum", "start"])
def test_embed_pools_what_encode_gives(vat, pooling):
    mean, logvar, mask = vat.encode(SENTENCES)
    keep = mask.unsqueeze(-1)
    count = keep.sum(dim=1)
    expected_mean = {"mean": mean.sum(1) / count, "sum": mean.sum(1), "start": mean[:, 0]}
    variance = (logvar.exp() * keep).sum(dim=1)
    expected_variance = {"mean": variance / count**2, "sum": variance, "start": logvar[:, 0].exp()}
    found = vat.embed(SENTENCES, pooling)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert_close(found, expected_mean[pooling])
    posterior = vat.embed_posterior(SENTENCES, pooling)
    assert isinstance(posterior, DiagonalGaussian)
    assert_close(posterior.logvar.exp(), expected_variance[pooling])


def test_one_latent_a_sentence_is_the_embedding(sentence_level):
    mean, logvar, mask = sentence_level.encode(SENTENCES)
    assert mask.shape == (6, 1)
    assert mask.all()
    for pooling in ("mean", "sum", "start"):
        posterior = sentence_level.embed_posterior(SENTENCES, pooling)
        assert_close(posterior.mean, mean[:, 0])
        assert_close(posterior.logvar, logvar[:, 0])
    assert not np.allclose(mean[0], mean[1], atol=1e-3)


def test_nothing_in_nothing_out(vat):
    assert vat.embed([]).shape == (0, 16)
    assert vat.encode([]).mean.shape == (0, 0, 16)


def test_sentences_may_come_one_by_one(vat):
    some = SENTENCES[:3]
    assert vat.reconstruct(one for one in some) == vat.reconstruct(some)
    assert vat.sample((one for one in some), 2) == vat.sample(some, 2)
    assert np.array_equal(vat.embed(one for one in some), vat.embed(some))
    assert vat.decode(vat.posteriors(some)) == vat.decode(vat.encode(some))


def test_a_model_in_training_is_used_without_dropout(vat):
    expected = vat.embed(SENTENCES), vat.reconstruct(SENTENCES)
    vat.train()
    frozen = next(vat.model.encoder.children()).eval()
    try:
        assert np.array_equal(vat.embed(SENTENCES), expected[0])
        assert vat.reconstruct(SENTENCES) == expected[1]
        assert vat.decode(vat.encode(SENTENCES)) == expected[1]
        assert vat.training and vat.model.training and not frozen.training
    finally:
        vat.eval()


def test_vectors_are_in_single_precision_whatever_torch_makes(vat, monkeypatch):
    expected = vat.embed(SENTENCES)
    torch.set_default_dtype(torch.float64)
    try:
        assert np.array_equal(vat.embed(SENTENCES), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_wrong_calls(vat):
    with pytest.raises(TypeError, match="a list of sentences"):
        vat.encode("w1 w2")
    with pytest.raises(VATError, match="'max': must be one of mean, sum, start"):
        vat.embed(["w1"], pooling="max")


def test_start_needs_a_start_token(data_dir):
    task, model, _ = build(data_dir, "--no-start-token")
    interface = VATHubInterface(None, task, model)
    assert interface.encode(["w1 w2"]).mask.size(1) == 3
    with pytest.raises(VATError, match="--no-start-token"):
        interface.embed(["w1"], pooling="start")


def test_sentences_are_cleaned(vat):
    assert np.array_equal(vat.embed(["  w1\tw2\x00 w3 "]), vat.embed(["w1 w2 w3"]))


def test_too_long_sentences_are_cut_and_told(data_dir, checkpoint, caplog):
    loaded = load_model(checkpoint, data_dir, "cpu", max_source_positions=6)
    interface = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    with caplog.at_level(logging.WARNING):
        cut = interface.embed(["w1 w2 w3 w4 w5 w6", "w1 w2 w3 w4"])
    assert "1 of 2 sentences cut to their first 4 subwords" in caplog.text
    assert_close(cut[0], cut[1])


def test_encoding_leaves_torch_s_and_numpy_s_generators_alone(vat):
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    vat.embed(SENTENCES)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)


def test_from_pretrained_finds_data_beside_the_checkpoint(data_dir, checkpoint, vat, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dict.txt").write_bytes((data_dir / "dict.txt").read_bytes())
    (tmp_path / "model.pt").write_bytes(checkpoint.read_bytes())
    settings = {"checkpoint_file": "model.pt", "data_name_or_path": "./data", "device": "cpu"}
    other = VATModel.from_pretrained(tmp_path, **settings, truncate=True)
    assert other.task.cfg.truncate
    assert np.array_equal(other.embed(SENTENCES), vat.embed(SENTENCES))


def test_subwords(vat, text_dir, tmp_path):
    model = subwords.train_sentencepiece(text_dir / "train", tmp_path / "spm", 40)
    bpe = build_bpe("sentencepiece", sentencepiece_model=model)
    interface = VATHubInterface(vat.cfg, vat.task, vat.model, bpe)
    pieces = interface.apply_bpe("w12  w3")
    assert pieces.startswith("\u2581w")
    assert interface.remove_bpe(pieces) == "w12 w3"
    sentences = ["w12  w3", "w1 nonsense", ""]  # together as one by one
    alone = [interface.binarize(interface.apply_bpe(sentence)) for sentence in sentences]
    (sample,) = interface.batches(sentences)
    pad = vat.task.source_dictionary.pad()
    together = dict(zip(sample["id"].tolist(), sample["net_input"]["src_tokens"], strict=True))
    for number, tokens in enumerate(alone):  # behind the start token
        assert together[number][together[number] != pad].tolist()[1:] == tokens.tolist()
    assert interface.binarize("w12 w3 nonsense").tolist() == [
        *(vat.task.source_dictionary.index(word) for word in ("w12", "w3")),
        vat.task.source_dictionary.unk(),
        vat.task.source_dictionary.eos(),
    ]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sentencespiece", {}, "--bpe sentencespiece: must be one of .*sentencepiece"),
        ("sentencepiece", {}, "--sentencepiece-model is needed"),
        ("sentencepiece", {"sentencepiece_model": "none.model"}, "file none.model not found"),
        ("sentencepiece", {"sentencepiece_model": __file__}, "not a sentencepiece model"),
        ("gpt2", {"gpt2_encoder_json": "vocab.json"}, "--gpt2-vocab-bpe is needed"),
        ("gpt2", {"gpt2_encoder_json": __file__, "gpt2_vocab_bpe": __file__}, "test_hub.py"),
        ("hf_byte_bpe", {"bpe_vocab": "none.json", "bpe_merges": "none.txt"}, "none.json"),
    ],
)
def test_subwords_that_are_not_there(name, settings, message):
    with pytest.raises(VATError, match=message):
        build_bpe(name, **settings)


@pytest.mark.parametrize(
    ("lacks", "message"),
    [("a", "1 of the 256 bytes have no token, 'a'"), ("the", "'th e' makes no")],
)
def test_a_gpt2_vocabulary_that_can_not_encode(lacks, message, vat, tmp_path):
    vocabulary = {token: i for token, i in gpt2.vocabulary().items() if token != lacks}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *gpt2.MERGES]) + "\n")
    paths = {"gpt2_encoder_json": "vocab.json", "gpt2_vocab_bpe": "merges.txt"}
    files = {setting: str(tmp_path / name) for setting, name in paths.items()}
    with pytest.raises(VATError, match=message):
        build_bpe("gpt2", **files)
    with pytest.raises(VATError, match=message):  # fairseq-interactive's way
        vat.task.build_bpe(Namespace(bpe="gpt2", **files))


def test_subword_settings_that_do_not_exist():
    with pytest.raises(TypeError, match="without bpe=NAME"):
        build_bpe(None, sentencepiece_model="x.model")
    with pytest.raises(TypeError, match="no setting model"):
        build_bpe("sentencepiece", model="x.model")
    assert build_bpe(None) is None
