"""``fairseq-vat report``: the page's content, its safety, and whether it fits a phone."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
import shutil
from argparse import Namespace
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch
from helpers import browser, commands

from fairseq_vat.cli import main as cli
from fairseq_vat.cli import report_commands
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation import evaluate
from fairseq_vat.evaluation.subset import Subset
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import load_model
from fairseq_vat.report import page
from fairseq_vat.report.gather import ReportSettings, describe_model, gather
from fairseq_vat.report.sentences import read_subset, read_text

QUICK = (
    *("--cpu", "--sentences", "30", "--examples", "4", "--samples", "2", "--steps", "3"),
    *("--beam", "2"),
)
SMALL = (
    *("--encoder-embed-dim", "32", "--encoder-ffn-embed-dim", "64", "--latent-dim", "8"),
    *("--decoder-embed-dim", "32", "--decoder-ffn-embed-dim", "64", "--dropout", "0"),
)
SECTIONS = (
    *("glance", "checkpoint", "curves", "dimensions", "isotropy", "map"),
    *("reconstructions", "samples", "prior", "interpolations"),
)
EVIL = "w1 w2 <script>alert('w3')</script> w4 & \"w5\" w6"
_VOID = {"meta", "br"}


class Page(HTMLParser):
    """What is in a page; fails on tags that don't pair."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.ids, self.attributes = [], [], [], []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def sentence_level(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    flags = ("--arch", "vae_transformer", "--kl-weight", "0.01", "--max-update", "40", *SMALL)
    commands.train(data_dir, folder, *flags)
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def pages(data_dir, checkpoint, sentence_level, tmp_path_factory):
    """A page of each level; the token level's is about sentences of a file."""
    folder = tmp_path_factory.mktemp("report")
    text = folder / "text"
    lines = [f"w{n} w{n + 1} w{2 * n} w{n} w7" for n in range(19)]
    text.write_text("\n".join([EVIL, *lines]) + "\n", encoding="utf-8")
    more = {"token": ("--text", text), "sentence": ()}
    found = {}
    alone = shutil.copy(checkpoint, folder)  # without its metrics.jsonl
    for level, path in {"token": alone, "sentence": sentence_level}.items():
        output = folder / f"{level}.html"
        command = ["report", data_dir, "--path", path, "--output", output, *QUICK, *more[level]]
        assert cli.main([str(part) for part in command]) == 0
        found[level] = output.read_text(encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def gathered(data_dir, checkpoint):
    loaded = load_model(checkpoint, data_dir, "cpu")
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    settings = ReportSettings(0.4, examples=2, samples=1, steps=2, beam=1)
    return gather(vat, read_subset(vat, "test", 20), settings)


def failure(capsys, *command):
    capsys.readouterr()
    try:
        status = cli.main([str(part) for part in command])
    except SystemExit as refused:  # by argparse
        status = refused.code
    assert status in (1, 2)
    captured = capsys.readouterr()
    assert not captured.out and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("level", ["token", "sentence"])
def test_the_page_is_whole(pages, level):
    found = Page(pages[level])
    assert set(SECTIONS) <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert found.tags.count("h1") == 1
    for tag, name, value in found.attributes:
        if name in ("href", "src"):
            assert value.startswith("#") and value[1:] in found.ids, (tag, value)
        assert not name.startswith("on")
    # nothing that a browser would fetch or run
    assert not {"script", "img", "link", "iframe", "object"} & set(found.tags)
    assert "http://" not in pages[level] and "https://" not in pages[level]
    assert "url(" not in pages[level].replace("url(#", "")
    labels = [
        value for tag, name, value in found.attributes if (tag, name) == ("svg", "aria-label")
    ]
    assert len(labels) == found.tags.count("svg") >= 5 and all(labels)
    assert len(pages[level]) < 2_000_000
    assert f"one latent for each {level}" in found.text
    assert len(re.findall(r"<title>[^<]*w\d", pages[level])) >= 20  # points tell their sentence


def test_text_is_escaped(pages, gathered):
    assert "<script" not in pages["token"]
    assert unescape(pages["token"]).count(EVIL) >= 1  # at least the map's tooltip
    assert "&lt;script&gt;" in pages["token"]
    told = page.build(gathered, "runs/<b onclick=x>.pt", None, "<i>no log</i>")
    assert "<b onclick" not in told and "<i>no" not in told
    assert told.count("&lt;b onclick=x&gt;.pt") == 3  # title, heading, file


def test_the_log_beside_the_checkpoint_is_found(pages, sentence_level):
    assert "Reconstruction by update" in pages["sentence"]
    assert f"From {sentence_level.parent}/metrics.jsonl." in pages["sentence"]
    assert "There is no train.log or metrics.jsonl beside the checkpoint" in pages["token"]
    assert "Reconstruction by update" not in pages["token"]


def test_the_log_in_the_model_s_folder_is_found(data_dir, checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path)
    (tmp_path / "train.log").write_text("no statistics")
    page = tmp_path / "page.html"
    command = ["report", str(tmp_path), "--data", str(data_dir), "--output", str(page), *QUICK]
    assert cli.main(command) == 0
    assert f"{tmp_path}/train.log has no statistics" in page.read_text(encoding="utf-8")


def test_the_same_command_gives_the_same_page(pages, data_dir, sentence_level, tmp_path, capsys):
    output = tmp_path / "again" / "page.html"
    command = ["report", data_dir, "--path", sentence_level, "--output", output, *QUICK]
    assert cli.main([str(part) for part in command]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert output.read_text(encoding="utf-8") == pages["sentence"]
    assert [path.name for path in output.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("level", ["token", "sentence"])
def test_it_fits_a_phone(pages, level, tmp_path):
    script = """
      const wide = [...page.querySelectorAll("body *")].filter(
        node => !node.closest("svg") && node.getBoundingClientRect().right > 360.5);
      return {width: view.innerWidth, scroll: page.documentElement.scrollWidth,
        wide: wide.map(node => node.outerHTML.slice(0, 100)),
        pictures: [...page.querySelectorAll("svg")].map(node => node.clientWidth),
        sections: [...page.querySelectorAll("section")].map(node => node.id),
        background: view.getComputedStyle(page.body).backgroundColor,
        title: page.title};"""
    # a word that doesn't end, and a script that the page's own policy must keep from running
    long = "w" * 500 + "<script>document.title = 'it ran'</script>"
    text = pages[level].replace("</h1>", f" {long}</h1>", 1)
    text = text.replace("<section", f"<p>{long}</p><section", 1)
    framed = tmp_path / "framed.html"
    framed.write_text(browser.in_frame(text, 360, script), encoding="utf-8")
    found, dark = (
        json.loads(unescape(re.search(r'<pre id="found">(.+?)</pre>', dom, re.S)[1]))
        for dom in (
            browser.dump_dom(framed, tmp_path / "light"),
            browser.dump_dom(framed, tmp_path / "dark", "--blink-settings=preferredColorScheme=0"),
        )
    )
    assert found["width"] == 360 and found["sections"] == list(SECTIONS)
    assert found["wide"] == [] and found["scroll"] <= 360
    assert all(250 < width <= 360 for width in found["pictures"])
    assert found["background"] == "rgb(255, 255, 255)" != dark["background"]
    assert found["title"].endswith(": report")


def test_warnings_stand_first(gathered, pages):
    line = "the posterior has collapsed (no active unit): the decoder ignores the latents; try x"
    unknown = dataclasses.replace(gathered.sentences, unknown_share=0.4)
    changed = SimpleNamespace(**{**vars(gathered), "warning": line, "sentences": unknown})
    told = page.build(changed, "a.pt", None, "no log")
    contents = told.index("<nav")
    assert told.index("The posterior has collapsed (no active unit).") < contents
    assert told.index("40% of the text is unknown to the dictionary.") < contents
    assert gathered.warning is None and 'class="warning"' not in pages["sentence"]


def test_interpolations_end_in_the_reconstructions(gathered):
    first, second = gathered.examples
    assert first.reconstruction != second.reconstruction
    assert gathered.interpolations == [(1, 2, [first.reconstruction, second.reconstruction])]


def test_the_prior_is_the_one_asked_for(data_dir, checkpoint, monkeypatch, tmp_path):
    loaded = load_model(checkpoint, data_dir, "cpu")
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    asked = []
    monkeypatch.setattr(
        VATHubInterface,
        "sample_prior",
        lambda self, count, **how: asked.append(how) or ["w1"],
    )
    sentences = read_subset(vat, "test", 20)
    settings = ReportSettings(0.3, examples=2, samples=1, steps=2, beam=1)
    gather(vat, sentences, settings)
    monkeypatch.setattr(vat.task.cfg, "data", str(tmp_path))  # without the training's text
    gather(vat, sentences, settings)
    lengths = sorted(len(line.split()) for line in sentences.pieces)
    assert [how["prior_std"] for how in asked] == [0.3, 0.3]
    assert [how["length"] for how in asked] == [None, lengths[len(lengths) // 2]]


def test_a_sentence_is_what_its_subwords_say(vat, tmp_path):
    """What the subwords' normalisation writes otherwise is no mistake of the model's."""

    class Lower:
        def encode(self, text):
            return text.lower()

        def decode(self, pieces):
            return pieces

    cased = VATHubInterface(vat.cfg, vat.task, vat.model, Lower())
    text = tmp_path / "cased"
    text.write_text("W1 w2 W3\nW4 w5\n", encoding="utf-8")
    assert read_text(cased, text, 2).texts == ["w1 w2 w3", "w4 w5"]


def test_an_unknown_word_is_not_given_back(vat, tmp_path):
    vat = VATHubInterface(vat.cfg, vat.task, vat.model)
    text = tmp_path / "unknown"
    text.write_text("w1 <unk> w3\nw4 w5\n", encoding="utf-8")
    found = read_text(vat, text, 2)
    assert found.texts == ["w1 <<unk>> w3", "w4 w5"] and found.pieces[0] == "w1 <unk> w3"


def test_isotropy_that_cant_be_measured_is_told(gathered):
    error = {"isotropy": None, "isotropy_error": "vectors <are> zero"}
    without = SimpleNamespace(**{**vars(gathered), **error})
    told = page.build(without, "a.pt", None, "no log")
    assert "Not measured: vectors &lt;are&gt; zero" in told
    assert "Cosine of random" in page.build(gathered, "a.pt", None, "no log")
    assert "Cosine of random" not in told and "<caption>" not in told


def test_two_equal_sentences_make_a_page(data_dir, checkpoint, tmp_path):
    loaded = load_model(checkpoint, data_dir, "cpu")
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    text = tmp_path / "text"
    text.write_text("w1 w2 w3\n" * 2, encoding="utf-8")
    settings = ReportSettings(0.4, examples=2, samples=1, steps=2, beam=1)
    found = gather(vat, read_text(vat, text, 20), settings)
    assert len(found.examples) == 1 and found.interpolations == []
    told = Page(page.build(found, "a.pt", None, "no log")).text
    assert "number of words: undefined and undefined" in told


def test_figures_are_those_of_evaluate(gathered, data_dir, checkpoint):
    loaded = load_model(checkpoint, data_dir, "cpu")
    subset = Subset(loaded.task, "test")
    measured = evaluate.measure(
        loaded.model,
        subset.batches(400, None, loaded.device),
        evaluate.EvaluationSettings(0.4, iw_samples=0),
    )
    found = gathered.measures
    close = {"rel": 1e-4}
    assert found["nll_mean"]["per_sentence"] == pytest.approx(sum(measured.nll) / 20, **close)
    assert found["nll_samples"]["per_sentence"] == pytest.approx(
        sum(measured.nll_samples) / 20, **close
    )
    assert found["kl"]["per_sentence"] == pytest.approx(sum(measured.kl) / 20, **close)
    assert found["nll_mean"]["per_token"] == pytest.approx(
        sum(measured.nll) / subset.tokens, **close
    )
    # the bars add up to the whole
    assert float(gathered.kl_L.sum()) == pytest.approx(found["kl_nats"], **close)
    assert int((gathered.variance_L >= 0.01).sum()) == found["active_units"]["count"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sentences", "1"), "argument --sentences: must be at least 2, not 1"),
        (("--steps", "1"), "argument --steps: must be at least 2, not 1"),
        (("--prior-std", "0"), "argument --prior-std: must be above 0, not 0"),
        (("--seed", str(2**32)), "argument --seed: must be from 0 to 4294967295"),
        (("--gen-subset", "dev"), "has test, train, valid"),
        (("--gen-subset", "test", "--input", "text.txt"), "--gen-subset is of --data"),
        (("--text", "nowhere.txt"), "nowhere.txt"),
        (("--train-log", "nowhere.log"), "nowhere.log"),
    ],
)
def test_mistakes_are_one_line(data_dir, checkpoint, tmp_path, capsys, flags, message):
    command = ("report", data_dir, "--path", checkpoint, "--output", tmp_path / "page.html")
    assert message in failure(capsys, *command, *QUICK, *flags)
    assert list(tmp_path.iterdir()) == []


def test_a_log_of_the_working_directory_is_not_the_packaged_model_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.log").write_text("epoch 001 | nll_loss 1 | kl_nats 1 | kl_weight 1\n")
    records, note = report_commands.find_log(Namespace(train_log=None, path="vat-small"))
    assert records is None and "There is no train.log" in note


def test_data_of_the_working_directory_are_no_ones(
    data_dir, checkpoint, tmp_path, capsys, monkeypatch
):
    """A checkpoint needs no data beside it, and takes none that it isn't given."""
    monkeypatch.chdir(data_dir)
    command = ("report", checkpoint, "--output", tmp_path / "page.html", *QUICK)
    assert "--data or --input is needed: a data directory, or" in failure(capsys, *command)
    task = load_model(checkpoint).task
    with pytest.raises(VATError, match="no data directory was given to read valid from"):
        task.load_dataset("valid")
    (tmp_path / "text").write_text("w1 w2\nw3 w4 w5\n")
    pages = []
    for number, folder in enumerate((data_dir, tmp_path)):
        monkeypatch.chdir(folder)
        page = tmp_path / f"{number}.html"
        assert (
            cli.main(
                [
                    *map(str, command[:2]),
                    "--output",
                    str(page),
                    *QUICK,
                    "--input",
                    f"{tmp_path}/text",
                ]
            )
            == 0
        )
        pages.append(page.read_text())
    assert pages[0] == pages[1]


def test_mistakes_in_files_are_one_line(data_dir, checkpoint, tmp_path, capsys):
    command = ("report", data_dir, "--path", checkpoint, "--output", tmp_path / "page.html", *QUICK)
    text = tmp_path / "text"
    text.write_text("\n\n", encoding="utf-8")
    assert "at least 2 sentences" in failure(capsys, *command, "--text", text)
    text.write_text("epoch 1 | loss 3 | num_updates 5\n", encoding="utf-8")
    assert "token_kl_cross_entropy" in failure(capsys, *command, "--train-log", text)
    stats = "nll_loss 3 | kl_nats 2 | kl_weight 1 | num_updates 5"
    text.write_text(f"epoch 1 | valid on 'valid' subset | {stats}\n", encoding="utf-8")
    assert "kl_weight of updates" in failure(capsys, *command, "--train-log", text)
    assert "is a folder" in failure(capsys, *command, "--output", tmp_path)
    inside = text / "page.html"
    assert "nothing can be written" in failure(capsys, *command, "--output", inside)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_latents_that_are_not_finite_are_said(data_dir, checkpoint, tmp_path, capsys):
    state = torch.load(checkpoint, weights_only=True)
    state["model"]["encoder.head.mean.bias"].fill_(math.nan)
    torch.save(state, tmp_path / "diverged.pt")
    output = tmp_path / "page.html"
    command = ("report", data_dir, "--path", tmp_path / "diverged.pt", "--output", output)
    assert "holds values that aren't finite" in failure(capsys, *command, *QUICK)
    assert not output.exists()


def test_a_language_model_is_refused(data_dir, tmp_path, capsys):
    commands.train(
        data_dir, tmp_path, "--arch", "transformer_decoder_lm", "--max-update", "1", *SMALL
    )
    output = tmp_path / "page.html"
    command = ("report", data_dir, "--path", tmp_path / "checkpoint_last.pt", "--output", output)
    assert "language model" in failure(capsys, *command, *QUICK)
    assert not output.exists()


@pytest.mark.parametrize(
    ("decoder", "text"),
    [("another", "; another decoder"), ("lstm", "; lstm decoder, 2 layers, 7 wide")],
)
def test_a_decoder_is_described_by_the_configuration(vat, monkeypatch, decoder, text):
    cfg = copy.deepcopy(vat.model.cfg)  # fairseq keeps the decoder's fields in a part of it
    assert describe_model(vat, 1.0)["Architecture"].endswith(
        "; transformer decoder, 2 layers, 32 wide"
    )
    cfg.decoder_type, cfg.decoder_hidden_size = decoder, 7
    monkeypatch.setattr(vat.model, "cfg", cfg)
    assert describe_model(vat, 1.0)["Architecture"].endswith(text)


def test_the_headline_counts_all_sentences(data_dir, checkpoint, monkeypatch):
    loaded = load_model(checkpoint, data_dir, "cpu")
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)

    def reconstruct(self, sentences, **how):
        return ["wrong" if number % 4 == 1 else line for number, line in enumerate(sentences)]

    monkeypatch.setattr(VATHubInterface, "reconstruct", reconstruct)
    settings = ReportSettings(0.4, examples=2, samples=1, steps=2, beam=1)
    found = gather(vat, read_subset(vat, "test", 20), settings)
    assert found.equal == 15
    told = Page(page.build(found, "a.pt", None, "no log")).text
    assert "Given back word for word15 of 20sentences, from the mean" in told
    below = " ".join(told.split())
    shown = sum(example.text == example.reconstruction for example in found.examples)
    assert f"word for word: 15 of all 20 measured, {shown} of the 2 shown." in below
    mean = found.measures["nll_mean"]["per_token"]
    assert f"Reconstruction from the mean{mean:.2f} nats" in told and " bits" not in told
