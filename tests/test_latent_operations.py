"""Reconstructions, samples, marked words, ways, sums and the prior, from Python."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers import commands

from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.latent.interpolation import interpolate

SENTENCES = ["w1 w2 w3 w4 w5", "w9 w8", "w3 w3 w8 w0 w1 w7"]


class Dropping:
    """Subwords without zero-width spaces, as sentencepiece's normalisation leaves them."""

    def encode(self, text):
        return text.replace("\u200b", "")

    def decode(self, pieces):
        return pieces


def test_reconstruct_is_what_generate_prints(vat, data_dir, text_dir, checkpoint):
    lines = (text_dir / "test").read_text(encoding="utf-8").splitlines()
    printed = commands.hypotheses(commands.generate(data_dir, checkpoint, "--beam", "3"))
    assert vat.reconstruct(lines, beam=3, max_len_b=30) == [
        printed[number][0] for number in range(len(lines))
    ]


def test_sample_is_what_interactive_prints(vat, data_dir, checkpoint):
    text = "\n".join(SENTENCES).encode() + b"\n"
    flags = ("--latent-sampling", "--latent-samples", "3", "--latent-seed", "7")
    flags += ("--latent-temperature", "4")
    printed = commands.hypotheses(commands.interactive(data_dir, checkpoint, text, *flags))
    found = vat.sample(SENTENCES, samples=3, temperature=4, seed=7, beam=2, max_len_b=30)
    assert found == [printed[number] for number in range(3)]
    assert len({line for lines in found for line in lines}) > 3


def test_the_other_sentences_do_not_matter(vat):
    together = vat.sample([*SENTENCES, "", SENTENCES[1]], samples=2, temperature=3)
    assert together[3] == ["", ""]
    assert together[4] == together[1]
    alone = [vat.sample([sentence], samples=2, temperature=3)[0] for sentence in SENTENCES]
    assert together[:3] == alone
    assert vat.reconstruct([]) == []


@pytest.fixture
def points(vat, monkeypatch):
    """Latents that are to be decoded, instead of decoding them."""
    given = []
    monkeypatch.setattr(vat, "decode", lambda some, beam, **_: given.extend(some) or some)
    return given


def test_vary_reads_marks_as_positions(vat):
    sentences, positions = vat.read_marked(["w1 [w2 w3] w4", "[w9] w8"])
    assert sentences == ["w1 w2 w3 w4", "w9 w8"]
    assert positions == [[2, 3], [1]]
    # all marked, but for start token and end of sentence, which are drawn by sample alone
    everything = vat.vary(["[w1 w2 w3 w4]"], samples=4, temperature=5, seed=3)
    some = vat.vary(["w1 [w2 w3] w4"], samples=4, temperature=5, seed=3)
    assert everything != some
    assert {len(lines) for lines in (*everything, *some)} == {4}


def test_vary_keeps_the_rest_at_its_mean(vat):
    """The drawn memory differs from the mean at marked positions only."""
    encoder = vat.model.encoder
    (sample,) = vat.batches(["w1 w2 w3 w4"])
    with torch.no_grad():
        out = encoder(sample["net_input"]["src_tokens"])
    drawn_BT = torch.tensor([[False, False, True, True, False, False]])
    z_PL = encoder.draw(out, seed=3, positions_BP=drawn_BT)["encoder_out"][0][:, 0]
    all_PL = encoder.draw(out, seed=3)["encoder_out"][0][:, 0]
    mean_PL = out["encoder_out"][0][:, 0]
    assert torch.equal(z_PL[[0, 1, 4, 5]], mean_PL[[0, 1, 4, 5]])
    assert torch.equal(z_PL[2:4], all_PL[2:4])
    assert not torch.equal(all_PL[2:4], mean_PL[2:4])


def test_interpolate_ends_in_the_reconstructions(vat):
    paths = vat.interpolate(SENTENCES[:2], SENTENCES[1:], steps=4, beam=2)
    plain = vat.reconstruct(SENTENCES, beam=2)
    assert [len(path) for path in paths] == [4, 4]
    assert [path[0] for path in paths] == plain[:2]
    assert [path[-1] for path in paths] == plain[1:]
    assert paths[0] != vat.interpolate(SENTENCES[:1], ["w5 w5"], steps=4, beam=2)[0]


def test_decode_takes_what_encode_gives(vat):
    plain = vat.reconstruct(SENTENCES, beam=2)
    latents = vat.encode(SENTENCES)
    assert vat.decode(latents, beam=2) == plain
    arrays = [latents.mean[n][latents.mask[n]].numpy() for n in range(3)]
    assert vat.decode(arrays, beam=2) == plain
    assert vat.decode([], beam=2) == []


def test_posteriors_are_encode_without_padding(vat):
    latents = vat.encode(SENTENCES)
    assert not latents.mask.all()
    for number, posterior in enumerate(vat.posteriors(SENTENCES)):
        assert torch.equal(posterior.mean, latents.mean[number][latents.mask[number]])
        assert torch.equal(posterior.logvar, latents.logvar[number][latents.mask[number]])
        # its own memory, not a view of a batch as long as its longest sentence
        assert posterior.mean.untyped_storage().nbytes() == posterior.mean.nbytes


@pytest.mark.parametrize("method", ["linear", "spherical"])
def test_interpolate_goes_from_mean_to_mean(vat, points, method):
    vat.interpolate(SENTENCES[:1], SENTENCES[1:2], 4, method)
    first, second = (posterior.mean for posterior in vat.posteriors(SENTENCES[:2]))
    assert len(points) == 4
    for found, expected in zip(points, interpolate(first, second, 4, method), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "sum", "start"])
def test_arithmetic_moves_every_token_by_the_pooled_difference(vat, points, pooling):
    a, b, c = SENTENCES
    vat.arithmetic([a], [b], [c], pooling)
    shift = torch.from_numpy(vat.embed([c], pooling) - vat.embed([b], pooling))
    assert shift.norm() > 0.01
    expected = vat.posteriors([a])[0].mean + shift
    torch.testing.assert_close(points[0], expected, atol=1e-5, rtol=1e-4)


def test_arithmetic(vat, sentence_level):
    plain = vat.reconstruct(SENTENCES, beam=2)
    assert vat.arithmetic(SENTENCES, ["w1 w2"] * 3, ["w1 w2"] * 3, beam=2) == plain
    a, b, c = (torch.from_numpy(sentence_level.embed([x])) for x in SENTENCES)
    expected = sentence_level.decode(a - b + c, beam=2, max_len_b=8)
    found = sentence_level.arithmetic(*([sentence] for sentence in SENTENCES), beam=2, max_len_b=8)
    assert found == expected
    with pytest.raises(ValueError, match="as many of each"):
        vat.arithmetic(SENTENCES, SENTENCES, SENTENCES[:1])


def test_a_direction_moves_every_latent(vat, sentence_level, points):
    source, target = SENTENCES[:2], [*SENTENCES, "w4"]
    direction = vat.direction(source, target, "sum")
    expected = vat.embed(target, "sum").mean(0) - vat.embed(source, "sum").mean(0)
    np.testing.assert_allclose(direction, expected, atol=1e-5)
    vat.shift(SENTENCES, direction, scale=-2.5)
    for point, posterior in zip(points, vat.posteriors(SENTENCES), strict=True):
        moved = posterior.mean - 2.5 * torch.from_numpy(expected)
        torch.testing.assert_close(point, moved, atol=1e-4, rtol=1e-4)
    direction = sentence_level.direction(source, target)
    expected = sentence_level.embed(SENTENCES) + direction
    found = sentence_level.shift(SENTENCES, direction, beam=2, max_len_b=8)
    assert found == sentence_level.decode(expected, beam=2, max_len_b=8)


def test_directions_and_their_mistakes(vat):
    direction = vat.direction(SENTENCES[:1], SENTENCES[1:])
    plain = vat.reconstruct(SENTENCES, beam=2)
    assert vat.shift(SENTENCES, direction, scale=0, beam=2) == plain
    assert vat.shift(SENTENCES, direction, scale=50, beam=2, max_len_b=9) != plain
    # to itself, from itself
    assert not vat.direction(SENTENCES, SENTENCES).any()
    assert np.array_equal(vat.direction(SENTENCES[1:], SENTENCES[:1]), -direction)
    with pytest.raises(VATError, match="a sentence of each attribute"):
        vat.direction(SENTENCES, [])
    with pytest.raises(VATError, match=r"of shape \(3,\): the model needs \(16,\)"):
        vat.shift(SENTENCES, np.zeros(3))
    with pytest.raises(VATError, match="finite"):
        vat.shift(SENTENCES, np.full(16, np.nan))


def test_the_prior_s_draws(vat, points):
    vat.sample_prior(300, length=6, prior_std=0.5, temperature=2.0)
    z = torch.stack(points)
    assert z.shape == (300, 8, vat.model.encoder.latent_dim)  # start token and end of sentence too
    # 38,400 numbers: four standard errors are 0.02 and 0.015
    assert abs(float(z.mean())) < 0.02
    assert abs(float(z.std()) - 1.0) < 0.015
    points.clear()
    vat.sample_prior(3, length=6, prior_std=0.5, temperature=2.0)
    assert torch.equal(torch.stack(points), z[:3])
    points.clear()
    vat.sample_prior(3, length=6)  # the training's s, and temperature 1
    torch.testing.assert_close(torch.stack(points), vat.cfg.criterion.prior_std * z[:3])


def test_the_prior_s_lengths_are_the_training_s(vat, points, text_dir):
    def drawn(count, seed):
        points.clear()
        vat.sample_prior(count, seed=seed)
        return [len(point) for point in points]

    lengths = drawn(2000, seed=1)
    lines = (text_dir / "train").read_text(encoding="utf-8").splitlines()
    expected = [len(line.split()) + 2 for line in lines]
    assert set(lengths) == set(expected)
    assert abs(np.mean(lengths) - np.mean(expected)) < 0.25  # four standard errors
    assert drawn(5, seed=1) == lengths[:5]
    assert drawn(50, seed=-1) != lengths[:50]


def test_as_long_as_the_source(vat):
    texts = vat.reconstruct(SENTENCES, match_source_len=True)
    assert [len(text.split()) for text in texts] == [len(text.split()) for text in SENTENCES]
    assert vat.decode(vat.encode(SENTENCES), match_source_len=True) == texts


def test_sampling_gives_samples(vat):
    torch.manual_seed(1)
    ours = vat.reconstruct(SENTENCES, sampling=True)
    torch.manual_seed(1)
    assert vat.reconstruct(SENTENCES, beam=1, sampling=True) == ours
    with pytest.raises(VATError, match="beam 5: with sampling it must be 1"):
        vat.sample(SENTENCES, beam=5, sampling=True)


def test_a_search_of_nothing_leaves_the_model_alone(vat):
    (sample,) = vat.batches(["w1 w2", "w9 w8", "w3 w4", "w5 w6", "w7 w0"])  # as many as the beam
    tokens, latents = sample["net_input"]["src_tokens"], vat.model.encoder
    out = latents(tokens, sample["net_input"]["src_lengths"])
    before = vat.model.sentence_nll(out, tokens, tokens)
    assert vat.reconstruct([]) == []
    assert torch.equal(vat.model.sentence_nll(out, tokens, tokens), before)


def test_one_latent_a_sentence(sentence_level):
    paths = sentence_level.interpolate(
        SENTENCES[:1], SENTENCES[1:2], 3, "spherical", beam=1, max_len_b=6
    )
    assert len(paths[0]) == 3
    assert len(sentence_level.sample_prior(2, prior_std=1.0, beam=1, max_len_b=6)) == 2
    with pytest.raises(VATError, match="one latent for a whole sentence"):
        sentence_level.vary(["w1 [w2]"])
    for setting in ({"match_source_len": True}, {"max_len_a": 1.5}):
        with pytest.raises(VATError, match="latent of a whole sentence has no length"):
            sentence_level.interpolate(SENTENCES[:1], SENTENCES[1:2], **setting)
    with pytest.raises(VATError, match="whatever its length"):
        sentence_level.sample_prior(2, length=3, prior_std=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(built_model, dtype):
    task, model = built_model
    model = copy.deepcopy(model)
    single = VATHubInterface(None, task, copy.deepcopy(model))
    other = VATHubInterface(None, task, model.to(dtype))
    settings = {"beam": 2, "max_len_b": 6}
    assert other.embed(SENTENCES).dtype == np.float32
    np.testing.assert_allclose(other.embed(SENTENCES), single.embed(SENTENCES), atol=0.05)
    assert other.decode(other.encode(SENTENCES), **settings) == other.reconstruct(
        SENTENCES, **settings
    )
    assert len(other.vary(["w1 [w2]"], samples=2, **settings)[0]) == 2
    assert len(other.interpolate(SENTENCES[:1], SENTENCES[1:2], 3, "spherical", **settings)) == 1
    assert len(other.sample_prior(2, length=4, prior_std=1.0, **settings)) == 2


def test_sentences_longer_than_the_model(built_model, caplog):
    task, model = built_model
    vat = VATHubInterface(None, task, model)
    room = task.max_positions()[0]
    long = " ".join(["w1"] * (room + 5))
    kept = " ".join(["w1"] * (room - 2))
    assert vat.reconstruct([long], beam=1, max_len_b=6) == vat.reconstruct([kept], 1, max_len_b=6)
    assert f"cut to their first {room - 2:,} subwords" in caplog.text
    with pytest.raises(VATError, match=f"subword {room - 1}, and the model"):
        vat.vary([f"{kept} [w2]"])


def test_mistakes_are_named(vat, data_dir, tmp_path):
    width = vat.model.encoder.latent_dim
    dropping = VATHubInterface(vat.cfg, vat.task, vat.model, Dropping())
    for call, message in {
        (lambda: vat.vary(["w1 w2"])): "no word is marked",
        (lambda: vat.vary(["w1 [w2"])): "without",
        (lambda: dropping.vary(["w1 [\u200b] w2"])): "no subword has anything of what is marked",
        (lambda: vat.vary(["w1 <w2>"], marks="<")): "opening and a closing mark",
        (lambda: vat.sample(SENTENCES, samples=0)): "--samples must be at least 1",
        (lambda: vat.sample(SENTENCES, temperature=0)): "--temperature must be above 0",
        (lambda: vat.reconstruct(SENTENCES, beam=0)): "--beam 0: must be at least 1",
        (lambda: vat.reconstruct(SENTENCES, temperature=0)): "--temperature 0.0: must be above 0",
        (lambda: vat.reconstruct(SENTENCES, min_len=500)): "--min-len 500: must be at most",
        (lambda: vat.reconstruct(SENTENCES, lenpen=np.nan)): "--lenpen nan: must be a finite",
        (lambda: vat.reconstruct(SENTENCES, sampling_topp=0.5)): "--sampling-topp requires",
        (
            lambda: vat.reconstruct(SENTENCES, sampling=True, sampling_topp=2.0)
        ): "--sampling-topp 2.0: must be above 0 and at most 1",
        (
            lambda: vat.sample(SENTENCES, diverse_beam_groups=2)
        ): "--diverse-beam-groups 2: must divide --beam, 5",
        (lambda: vat.interpolate(SENTENCES, SENTENCES, steps=1)): "at least 2",
        (lambda: vat.interpolate(SENTENCES, SENTENCES, method="cubic")): "linear or spherical",
        (lambda: vat.decode([np.zeros((3, width + 1))])): rf"needs \(P, {width}\)",
        (lambda: vat.decode([np.full((3, width), np.nan)])): "aren't finite",
        (lambda: vat.sample_prior(0)): "at least 1",
        (lambda: vat.sample_prior(1, length=5000)): "must be from 1 to",
        (
            lambda: vat.sample_prior(1, prior_std=-1.0)
        ): "--prior-std must be a standard deviation above 0, not -1.0",
    }.items():
        with pytest.raises(VATError, match=message):
            call()
    for name in ("beans", "nbest", "constraints", "score_reference", "lm_path"):
        with pytest.raises(TypeError, match=f"^{name} is no setting: there are beam, max_len_a, "):
            vat.reconstruct(SENTENCES, **{name: "x"})
    for call in (
        lambda: vat.vary("w1 [w2]"),
        lambda: vat.sample("w1"),
        lambda: vat.interpolate("w1", "w2"),
        lambda: vat.arithmetic("w1", "w2", "w3"),
    ):
        with pytest.raises(TypeError, match="not one string"):
            call()


def test_lengths_need_the_training_data(vat, monkeypatch, tmp_path):
    monkeypatch.setattr(vat.cfg.task, "data", str(tmp_path))
    with pytest.raises(VATError, match="to draw lengths from: give a length"):
        vat.sample_prior(1)
