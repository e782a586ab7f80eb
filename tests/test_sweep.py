"""The sweep over the prior's standard deviation: its steps with commands that only pretend, and the
tables and figures."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sweep_prior_std as sweep
import torch
from helpers.models import batch, build
from helpers.scripts import Workplace, squeezed
from matplotlib import pyplot as plt

# what the real commands would leave
PRETEND = """
import signal
if name == "fairseq-train":
    save = Path(value("--save-dir"))
    if os.environ.get("FAIL", "nothing") in str(save):
        sys.exit("no memory is left")
    if "STAYS" in os.environ:
        Path(os.environ["STAYS"]).write_text(str(os.getpid()))
        signal.pause()
    with zipfile.ZipFile(save / "checkpoint_last.pt", "w") as file:
        file.writestr("data", "x")
    (save / "train.log").write_text(
        "epoch 001 | valid on 'valid' subset | loss 3 | nll_loss 2 | kl_weight 0.5 "
        "| accuracy 75 | num_updates 9"
    )
if name == "fairseq-vat" and args[0] == "prepare":
    out = Path(value("--output"))
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenize.json").write_text("made")
    (out / "data-bin").mkdir(exist_ok=True)
    for name in ("made_from.json", "dict.txt", "train.bin"):
        (out / "data-bin" / name).write_text("made")
    (out / "data-bin" / "test.bin").write_text(Path(value("--test")).read_text())
if name == "fairseq-vat" and args[0] == "evaluate":
    per_token = lambda x: {"per_token": x}
    print(json.dumps({
        "nll_samples": per_token(1.5), "kl": per_token(12.8), "kl_nats": 12.0,
        "penalty": per_token(6.4) if "prior-s" in value("--path") else None, "penalty_nats": 6.0,
        "active_units_scaled": {"count": 7, "of": 128},
    }))
if name == "fairseq-vat" and args[0] == "isotropy":
    names = ("random_cosine", "self_similarity", "intra_sentence_similarity", "iso_score")
    print(json.dumps({"latents": dict.fromkeys(names, 0.25)}))
"""


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    """A folder with a text."""
    (tmp_path / "text").write_text("a b\n")
    (tmp_path / "sts").mkdir()
    return Workplace(tmp_path, "sweep_prior_std.sh", PRETEND)


TEXTS = ("text", "text", "text")


def written(work: Workplace) -> str:
    """What the script wrote."""
    return squeezed((work.folder / "out" / "sweep.md").read_text())


def flag(args: list[str], name: str) -> str:
    """The value that counts: a flag's last."""
    return args[len(args) - args[::-1].index(name)]


def test_every_step_is_done_once_and_more_can_be_added(work):
    few = ("out", *TEXTS, "--updates", "40", "--isotropy-text", "sts", "--curves", "0.4")
    few = (*few, "--noises", "unit")
    done = work.run(
        *few, "--prior-std", "1.0,.4", "--jobs", "2", "--", "--max-tokens", "77", EACH=""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("out/sweep.md\n")
    trained = {
        flag(call, "--save-dir").split("/out/")[1]: call for call in work.calls("fairseq-train")
    }
    assert set(trained) == {
        f"{setting}/unit-s{s}-seed1" for setting in ("mean", "sum") for s in (1, 0.4)
    }
    call = trained["mean/unit-s0.4-seed1"]
    assert flag(call, "--latent-noise") == "unit" and flag(call, "--seed") == "1"
    assert flag(call, "--prior-std") == "0.4" and flag(call, "--kl-reduction") == "mean"
    assert flag(call, "--max-update") == "40" and flag(call, "--kl-annealing-updates") == "20"
    assert flag(call, "--max-tokens") == "77" and "--cpu" in call
    assert len(work.calls("fairseq-vat", "prepare")) == 1
    assert len(work.calls("fairseq-vat", "evaluate")) == 4
    assert flag(work.calls("fairseq-vat", "isotropy")[0], "--sts").endswith("/sts")
    # 0.5 x 12.8 nats a token; the mean over 128 dimensions is 128 times less
    text = written(work)
    assert "| 0.4 | 1.550 | 1.500 | 0.050 | 12.000 | 12.000 | 7 | 75.0 | 0.250 |" in text
    assert "| 1 | 7.900 | 1.500 | 6.400 | 12.000 | 12.000 | 7 |" in text

    more = work.run(*few, "--prior-std", "0.4,0.6", "--setting", "sum=--kl-reduction sum", "--",
                    "--max-tokens", "77")  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert [flag(call, "--prior-std") for call in work.calls("fairseq-train")] == ["0.6"]
    assert len(work.calls("fairseq-vat", "evaluate")) == 1
    assert "mean, unit noise" in written(work)  # which this call doesn't name

    # figures of a model that is gone stay, and are nobody else's
    for path in (work.folder / "out").glob("*/*/checkpoint*.pt"):
        path.unlink()
    assert work.run(*few, "--prior-std", "0.4", "--", "--max-tokens", "77").returncode == 0
    assert not work.calls("fairseq-train")
    assert "| 0.4 | 1.550 | 1.500 | 0.050 | 12.000 | 12.000 | 7 | 75.0 |" in written(work)
    other = work.run(*few, "--prior-std", "0.4", "--updates", "80")
    assert other.returncode == 1 and "was made with other flags or texts" in other.stderr
    assert not work.calls("fairseq-train")


def test_noises_and_seeds(work):
    few = ("out", *TEXTS, "--updates", "40", "--prior-std", "0.4,1", "--isotropy-text", "sts")
    few = (*few, "--setting", "sum=--kl-reduction sum")
    assert work.run(*few, "--noises", "prior").returncode == 0
    done = work.run(*few, "--seeds", "2")
    assert done.returncode == 0, done.stderr
    calls = work.calls("fairseq-train")
    assert [
        (flag(call, "--latent-noise"), flag(call, "--prior-std"), flag(call, "--seed"))
        for call in calls
    ] == [
        ("unit", "0.4", "1"), ("unit", "1", "1"), ("unit", "0.4", "2"), ("unit", "1", "2"),
        ("prior", "0.4", "2"), ("prior", "1", "2"),
    ]  # fmt: skip
    assert flag(calls[-1], "--save-dir").endswith("/out/sum/prior-s1-seed2")
    unit, prior = written(work).split("### sum, prior noise")
    assert "### sum, unit noise" in unit
    row = "0.000 | 12.000 ± 0.000 | 7.0 ± 0.0 |"
    assert f"| 0.4 | 7.900 ± 0.000 | 1.500 ± 0.000 | 6.400 ± 0.000 | 12.000 ± {row}" in unit
    # half the penalty of 6.4 nats a token, and the KL beside it
    assert f"| 0.4 | 4.700 ± 0.000 | 1.500 ± 0.000 | 3.200 ± 0.000 | 6.000 ± {row}" in prior


def test_where_the_script_alone_is_killed_its_job_keeps_the_folder(work):
    few = ("out", *TEXTS, "--noises", "unit", "--prior-std", "0.4", "--isotropy-text", "sts")
    pid = work.folder / "pid"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(work.run, *few, STAYS=str(pid))
        while not (pid.exists() and pid.read_text()):
            assert not first.done(), first.result().stderr
            time.sleep(0.01)
        job = int(pid.read_text())
        try:
            # the job's parent is the script's copy of itself, whose parent is the script
            script = parent(parent(job))
            os.kill(script, signal.SIGKILL)
            second = work.run(*few)
        finally:
            os.kill(job, signal.SIGKILL)
    assert first.result().returncode == -signal.SIGKILL
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].endswith("another run of this script is at work there")
    assert work.run(*few).returncode == 0


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_was_made_of_another_text_is_not_taken(work):
    few = (
        "--noises",
        "unit",
        *("--updates", "40", "--prior-std", "0.4", "--setting", "sum=--kl-reduction=sum"),
    )
    assert work.run("out", *TEXTS, *few, "--isotropy-text", "sts").returncode == 0
    table = (work.folder / "out" / "sweep.md").read_text()

    elsewhere = work.run("out", *TEXTS, *few)
    assert elsewhere.returncode == 1
    assert "isotropy.json was made with other flags or texts" in elsewhere.stderr
    assert not work.calls("fairseq-train") and not work.calls("fairseq-vat", "isotropy")

    (work.folder / "another").write_text("c d\n")
    another = work.run("out", "text", "text", "another", *few, "--isotropy-text", "sts")
    assert another.returncode == 1
    assert "out/sum/unit-s0.4-seed1 was made with other flags or texts" in another.stderr
    assert not work.calls("fairseq-train") and not work.calls("fairseq-vat", "evaluate")
    assert (work.folder / "out" / "sweep.md").read_text() == table


def test_what_failed_can_be_tried_with_other_flags(work):
    few = ("out", *TEXTS, "--updates", "40", "--prior-std", "0.4", "--noises", "unit")
    wrong = work.run(*few, "--setting", "sum=--kl-reduction all", FAIL="s0.4")
    assert wrong.returncode == 1 and "no memory is left" in wrong.stderr
    right = work.run(*few, "--setting", "sum=--kl-reduction sum")
    assert right.returncode == 0, right.stderr
    assert flag(work.calls("fairseq-train")[0], "--kl-reduction") == "sum"


def test_a_flag_and_its_value_in_one_word(work):
    few = ("out", *TEXTS, "--updates", "40", "--prior-std", "0.4", "--noises", "unit")
    done = work.run(*few, "--setting", "mean=--kl-reduction=mean")
    assert done.returncode == 0, done.stderr
    text = written(work)
    assert "| 0.4 | 1.550 | 1.500 | 0.050 |" in text
    assert "--kl-reduction mean" in text


def test_a_failure_leaves_the_other_runs_and_a_second_try(work):
    few = ("out", *TEXTS, "--prior-std", "0.5,0.6", "--setting", "tenth=--kl-weight 0.1")
    few = (*few, "--noises", "prior")
    failed = work.run(*few, FAIL="s0.5")
    assert failed.returncode == 1
    assert "fairseq-train failed: no memory is left" in failed.stderr
    text = written(work)
    assert "| 0.5 |" not in text and "| 0.6 | 4.700 |" in text
    assert "Without figures: s = 0.5." in text
    assert "--kl-weight 0.1 " in text.replace("`", " ")
    assert work.run(*few).returncode == 0
    assert len(work.calls("fairseq-train")) == 1


def test_dry_run_prints_commands_and_does_nothing(work):
    done = work.run("out", *TEXTS, "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("env MAX_PIECES=30 scripts/prepare_corpus.sh ")
    trained = [line for line in lines if line.startswith("fairseq-train ")]
    assert len(trained) == 32
    assert (
        sum(" --prior-std 0.8 " in line and "--kl-reduction mean" in line for line in trained) == 2
    )
    assert sum(" --latent-noise prior " in line for line in trained) == 16
    assert sum(line.endswith("/evaluate.json") for line in lines) == 32
    assert sum(line.endswith("/isotropy.json") and " --text " in line for line in lines) == 32
    assert not (work.folder / "out").exists()
    assert not work.calls("fairseq-train")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["text", "nowhere", "text"], "nowhere can't be read"),
        ([*TEXTS, "--prior-std", "0.4,0"], "--prior-std 0: must be a standard deviation above 0"),
        ([*TEXTS, "--prior-std", "-1"], "--prior-std -1: must be a standard deviation above 0"),
        ([*TEXTS, "--prior-std", ""], "--prior-std needs a value"),
        ([*TEXTS, "--curves", "half"], "--curves half: must be a standard deviation above 0"),
        ([*TEXTS, "--noises", "unit,none"], "--noises none: must be unit, prior or both"),
        ([*TEXTS, "--noises", ""], "--noises needs a value"),
        ([*TEXTS, "--seeds", "0"], "--seeds 0: must be a whole number, at least 1"),
        ([*TEXTS, "--updates", "0"], "--updates 0: must be a whole number, at least 1"),
        ([*TEXTS, "--max-pieces", "x"], "--max-pieces x: must be a whole number"),
        ([*TEXTS, "--setting", "--kl-weight 1"], "--setting --kl-weight 1: give NAME=FLAGS"),
        ([*TEXTS, "--setting", "a=", "--setting", "a="], "--setting a is given twice"),
        ([*TEXTS, "--isotropy-text", "no"], "can't be read"),
        ([*TEXTS, "--epochs", "3"], "--epochs: there is no such option"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(work, flags, message):
    done = work.run("out", *flags)
    assert done.returncode == 1
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (work.folder / "out").exists()


def made_up(folder: Path, kl: float, cosine: float, iso: float) -> None:
    folder.mkdir(parents=True)
    per_token = {"per_token": kl}
    active = {"count": 7, "of": 128}
    (folder / "evaluate.json").write_text(
        json.dumps(
            {
                "nll_samples": per_token,
                "kl": per_token,
                "kl_nats": kl,
                "penalty": None,
                "active_units_scaled": active,
            }
        )
    )
    latents = {"random_cosine": cosine, "self_similarity": 0.8, "iso_score": iso}
    latents["intra_sentence_similarity"] = None  # a text without a sentence of two words
    (folder / "isotropy.json").write_text(json.dumps({"latents": latents}))
    lines = [
        f"epoch 001:  {update} / 99 loss=3.0, nll_loss=2.0, kl_nats={kl * 99 / update}, "
        f"kl_weight=1, num_updates={update}"
        for update in (20, 40, 60)
    ]
    lines.append(
        "epoch 001 | valid on 'valid' subset | loss 2.5 | nll_loss 2 | kl_nats 2 | kl_weight 1 | "
        "accuracy 50 | num_updates 60"
    )
    (folder / "train.log").write_text("\n".join(lines))
    (folder / "done").touch()


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """A folder with made-up figures: one setting with a collapse, one half done."""
    runs = tmp_path / "sum"
    made_up(runs / "unit-s0.2-seed1", kl=9, cosine=0.3, iso=0.2)
    made_up(runs / "unit-s0.4-seed1", kl=5, cosine=0.1, iso=0.1)
    made_up(runs / "unit-s0.8-seed1", kl=0.01, cosine=0.0, iso=0.9)
    made_up(runs / "unit-s1-seed1", kl=0.02, cosine=0.9, iso=0.0)
    made_up(tmp_path / "mean" / "unit-s1-seed1", kl=40, cosine=0.05, iso=0.4)
    (tmp_path / "mean" / "unit-s0.4-seed1").mkdir()
    (tmp_path / "mean" / "s0.4").mkdir()  # none of ours
    return tmp_path


def test_spread_over_seeds(tmp_path, monkeypatch):
    for seed, (kl, cosine) in enumerate(((1, 0.1), (2, 0.2), (6, 0.6)), 9):  # 10 is after 9
        made_up(tmp_path / "sum" / f"prior-s0.4-seed{seed}", kl=kl, cosine=cosine, iso=0.5)
    made_up(tmp_path / "sum" / "prior-s0.6-seed9", kl=0.05, cosine=0.0, iso=0.5)
    made_up(tmp_path / "sum" / "prior-s0.6-seed10", kl=0.15, cosine=0.0, iso=0.5)
    (tmp_path / "sum" / "prior-s0.6-seed11").mkdir()
    text = squeezed(sweep.document(tmp_path, ["sum"]))
    # of 1, 2, 6: mean 3, deviations -2, -1, 3, so a variance of 14 / 2
    assert "| 3.000 ± 2.646 | 3.000 ± 2.646 | 7.0 ± 0.0 | 50.0 ± 0.0 | 0.300 ± 0.265 |" in text
    assert "| 0.500 ± 0.000 | 3 |" in text and "| 0.500 ± 0.000 | 2 |" in text
    assert "Collapsed: s = 0.6 (1 of 2 seeds)." in text

    seen = {}

    def keep(figure):
        for axis in figure.axes:
            seen[len(seen)] = [
                segment.tolist() for lines in axis.collections for segment in lines.get_segments()
            ]

    monkeypatch.setattr(plt, "close", keep)
    sweep.draw(tmp_path, ["sum"], [0.4])
    (similarities, *_) = seen.values()
    low, high = 0.3 - 0.07**0.5, 0.3 + 0.07**0.5
    assert any(
        line == [pytest.approx([0.4, low]), pytest.approx([0.4, high])] for line in similarities
    )
    assert (tmp_path / "curves-sum-prior.png").exists()


def test_answers_follow_from_the_figures(swept):
    text = squeezed(sweep.document(swept, ["sum", "mean", "not-begun"]))
    summed, averaged = text.split("### mean, unit noise")
    assert "Collapsed: s = 0.8, 1." in summed
    assert "cosine of random words is least at s = 0.4 (0.100)" in summed
    assert "IsoScore is greatest at s = 0.2 (0.200)" in summed
    assert "Collapsed: none." in averaged and "least" not in averaged  # of one run
    assert "not-begun" not in text
    assert (
        "| 0.2 | 18.000 | 9.000 | 9.000 | 9.000 | 9.000 | 7 | 50.0 | 0.300 | 0.800 | 0.200 |"
        in text
    )


def test_figures_show_every_run_that_is_done(swept, monkeypatch):
    drawn = {}

    def keep(figure):
        for axis in figure.axes:
            low, high = axis.get_ylim()
            seen = [y for line in axis.lines for y in line.get_ydata() if y == y]
            assert all(low <= y <= high for y in seen), axis.get_title(loc="left")
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        panels = {
            axis.get_title(loc="left"): [
                [(x, y) for x, y in line.get_xydata().tolist() if y == y] for line in axis.lines
            ]
            for axis in figure.axes
        }
        drawn[len(drawn)] = (legend, panels)

    monkeypatch.setattr(plt, "close", keep)
    sweep.draw(swept, ["sum", "mean"], [1.0, 0.4])
    for name in ("similarities", "losses", "kl", "curves-sum-unit", "curves-mean-unit"):
        assert (swept / f"{name}.png").stat().st_size > 1000
    (legend, panels), (loss_legend, losses), (kl_legend, kl), (_, two), (_, one) = drawn.values()
    assert set(panels) == {"sum, unit noise", "mean, unit noise"}
    assert panels["sum, unit noise"][legend.index("random words")] == [
        (0.2, 0.3), (0.4, 0.1), (0.8, 0.0), (1, 0.9)
    ]  # fmt: skip
    assert (
        panels["sum, unit noise"][legend.index("intra-sentence similarity")] == []
    )  # unknown is a gap
    assert losses["mean, unit noise"][loss_legend.index("loss")] == [(1, 80)]
    assert kl_legend == ["s = 0.2", "s = 0.4", "s = 0.8", "s = 1"]
    assert [len(line) for line in kl["sum, unit noise"]] == [3] * 4
    assert len(kl["mean, unit noise"]) == 1
    assert list(two) == [
        f"{what}, s = {std}" for what in ("Weighted KL", "Reconstruction") for std in (1, 0.4)
    ]
    train, valid = two["Reconstruction, s = 1"]
    assert [x for x, _ in train] == [20, 40, 60] and len(valid) == 1
    assert train[0][1] == pytest.approx(1.3863, abs=1e-3)  # 2 bits
    assert len(one) == 2  # s = 0.4 isn't done


@torch.no_grad()
def test_the_prior_s_scale_is_no_property_of_a_model(data_dir):
    """docs/sweep.md: every model has, under any other s, one with the same loss, token by token."""
    task, model, criterion = build(data_dir, "--dropout", "0", "--prior-std", "1")
    _, scaled, scaled_criterion = build(data_dir, "--dropout", "0", "--prior-std", "0.25")
    scaled.load_state_dict(model.state_dict())
    head = scaled.encoder.head
    head.mean.weight *= 0.25
    head.mean.bias *= 0.25
    head.logvar.bias += 2 * math.log(0.25)
    for layer in scaled.decoder.layers:
        layer.encoder_attn.k_proj.weight /= 0.25
        layer.encoder_attn.v_proj.weight /= 0.25
    sample = batch(task, [0, 1, 2])
    loss, _, logged = criterion(model.eval(), sample)
    same, _, same_logged = scaled_criterion(scaled.eval(), sample)
    torch.testing.assert_close(same, loss, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(same_logged["kl"], logged["kl"], rtol=1e-5, atol=1e-3)
    # and not because s were without effect
    other, _, _ = scaled_criterion(model, sample)
    assert other > 1.5 * loss
