"""Reading fairseq's logs back, and the figures drawn from them."""

import json
import logging
import math
from collections import OrderedDict

import pytest
from fairseq.logging import progress_bar

from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.generation_log import (
    read_generation,
    reconstruction_figures,
    sample_figures,
)
from fairseq_vat.evaluation.training_log import Record, last_validation, read_training_log
from fairseq_vat.report import plots
from fairseq_vat.report.plots import panel_curves


def _stats(update: int) -> OrderedDict:
    return OrderedDict(
        loss=9.5 - update / 10,
        nll_loss=9.0 - update / 10,
        kl_loss=0.5,
        kl_nats=100.0 / update,
        kl_weight=update / 100,
        elbo_ppl=float("inf"),
        num_updates=update,
    )


def _write_log(path, log_format: str) -> None:
    """Two epochs of ten updates, written by fairseq's own progress bars."""
    handler = logging.FileHandler(path)
    logger = progress_bar.logger
    level, handlers, propagate = logger.level, logger.handlers[:], logger.propagate
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        for epoch in (1, 2):
            # fairseq-train adds a handler in each epoch, so lines come several times.
            batches = range(10)
            bar = progress_bar.progress_bar(
                batches, log_format=log_format, log_interval=5, log_file=str(path), epoch=epoch
            )
            for batch in bar:
                update = (epoch - 1) * 10 + batch + 1
                bar.log(_stats(update), tag="train_inner", step=update)
            valid = progress_bar.progress_bar(
                batches, log_format=log_format, epoch=epoch, prefix="valid on 'valid' subset"
            )
            valid.print(
                OrderedDict(_stats(epoch * 10), best_loss=1.0), tag="valid", step=epoch * 10
            )
            bar.print(_stats(epoch * 10), tag="train", step=epoch * 10)
    finally:
        for added in set(logger.handlers) - set(handlers):
            logger.removeHandler(added)
            added.close()
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture(params=["json", "simple"])
def log(request, tmp_path):
    path = tmp_path / "train.log"
    _write_log(path, request.param)
    return path


def test_read_training_log(log):
    records = read_training_log(log)
    assert [(r.kind, r.epoch, r.num_updates) for r in records] == [
        ("train_inner", 1, 5),
        ("train", 1, 10),
        ("train_inner", 1, 10),
        ("valid", 1, 10),
        ("train_inner", 2, 15),
        ("train", 2, 20),
        ("train_inner", 2, 20),
        ("valid", 2, 20),
    ]
    inner, valid = records[0], records[3]
    assert inner.stats["nll_loss"] == pytest.approx(8.5)
    # no number in text
    simple = "elbo_ppl=>1e6" in log.read_text(encoding="utf-8")
    assert inner.stats.get("elbo_ppl") == (None if simple else float("inf"))
    assert "num_updates" not in inner.stats
    assert (valid.subset, valid.stats["kl_nats"], valid.stats["best_loss"]) == ("valid", 10, 1)


def test_standard_output_reads_like_a_log_file(log):
    expected = read_training_log(log)
    lines = log.read_text(encoding="utf-8").splitlines()
    stamp = "2026-01-31 12:34:56 | INFO | train_inner | "
    log.write_text("".join(f"{stamp}{line}\n" for line in lines), encoding="utf-8")
    assert read_training_log(log) == expected


def test_a_resumed_run_overwrites(log):
    lines = log.read_text(encoding="utf-8").splitlines()
    again = [line for line in lines if "valid" in line][-1].replace("1", "7", 1)
    log.write_text("\n".join([*lines, "{cut off", again]), encoding="utf-8")
    assert len(read_training_log(log)) == 8


def test_of_an_abandoned_run_nothing_is_left_past_a_resumed_one_s_start(log):
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = read_training_log(log)
    of_the_first_epoch = [line for line in lines if '"epoch": 1' in line or "epoch 001" in line]
    log.write_text("".join([*lines, *of_the_first_epoch]), encoding="utf-8")
    assert read_training_log(log) == [one for one in whole if one.num_updates <= 10]
    assert len(whole) == 8


def test_the_weighted_kl_is_the_loss_s_term():
    """Under noise of the prior's width the latents' KL is another number."""
    stats = {"kl_nats": 6.0, "kl_weight": 0.5, "nll_loss": 1.0}
    for more, expected in (({}, 3.0), ({"penalty_nats": 1.0}, 0.5)):
        record = Record("train_inner", 1, 10, stats | more)
        assert panel_curves([record], "Weighted KL").train == ([10], [expected])


def test_what_is_no_number_leaves_a_gap(tmp_path):
    """Null in metrics.jsonl, as "nan" in a log."""
    record = {"epoch": 1, "subset": "train_inner", "kind": "train_inner", "nll_loss": 1.0}
    lines = [{**record, "update": n, "kl_nats": kl} for n, kl in ((100, 5), (200, None), (300, 4))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    updates, values = panel_curves(read_training_log(tmp_path), "KL divergence").train
    assert updates == [100, 200, 300]
    assert values == pytest.approx([5, math.nan, 4], nan_ok=True)


def test_no_record_is_said(tmp_path):
    path = tmp_path / "other.log"
    path.write_text('{"loss": 1}\nepoch one\n', encoding="utf-8")
    with pytest.raises(VATError, match="--log-format json"):
        read_training_log(path)


@pytest.mark.parametrize("kl_only", [False, True])
def test_figures_are_drawn(log, tmp_path, kl_only):
    records = read_training_log(log)
    plots.learning_curves(records, tmp_path / "curves.png", kl_only=kl_only)
    plots.compare_annealing({"": records}, tmp_path / "annealing.png")
    for name in ("curves.png", "annealing.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_figures_of_very_short_runs(tmp_path):
    stats = {"nll_loss": 9.0, "kl_nats": 0.0, "kl_weight": 0.0}
    records = [Record("train", 1, 3, stats)]
    plots.learning_curves(records, tmp_path / "curves.png")
    plots.compare_annealing({"": records}, tmp_path / "annealing.png")


def test_log_of_another_criterion_is_refused(tmp_path):
    with pytest.raises(VATError, match="token_kl_cross_entropy"):
        plots.compare_annealing(
            {"": [Record("train_inner", 1, 5, {"loss": 1.0})]}, tmp_path / "a.png"
        )
    assert not list(tmp_path.iterdir())


def test_the_last_validation(log, tmp_path):
    last = last_validation(log)
    assert (last.kind, last.subset, last.num_updates) == ("valid", "valid", 20)
    assert last.stats["loss"] == pytest.approx(7.5)
    assert last_validation(tmp_path / "none") is None
    (tmp_path / "begun").write_text("nothing yet\n", encoding="utf-8")
    assert last_validation(tmp_path / "begun") is None


def _generation(path, sentences: dict[int, tuple[str, list[str]]]) -> None:
    lines = []
    for number, (source, outputs) in sentences.items():
        lines += [f"S-{number}\t{source}", f"T-{number}\t{source}"]
        for output in outputs:
            lines += [
                f"H-{number}\t-0.5\t▁{output}",
                f"D-{number}\t-0.5\t{output}",
                f"P-{number}\t-0.1 -0.2",
            ]
    lines.append("Generate test with beam=5: BLEU = 100.00")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_read_generation_and_figures(tmp_path):
    path = tmp_path / "generate-test.txt"
    first = "The cat sat on the mat today ."
    _generation(path, {7: ("No.", ["No.", ""]), 0: (first, [first, "The dog sat on the mat ."])})
    sentences = read_generation(tmp_path)
    assert [(s.id, s.source, len(s.outputs)) for s in sentences] == [(0, first, 2), (7, "No.", 2)]
    assert sentences[1].outputs == ["No.", ""]
    figures = reconstruction_figures(sentences)
    assert (figures["sentences"], figures["exact_match"]) == (2, 1.0)
    assert figures["bleu"] == pytest.approx(100)
    samples = sample_figures(sentences)
    assert samples["exact_match"] == 0.5
    assert samples["samples_per_sentence"] == samples["distinct_per_sentence"] == 2
    assert 10 < samples["bleu"] < 90


def test_broken_generation_files_are_said(tmp_path):
    path = tmp_path / "generate-test.txt"
    path.write_text("T-0\tA sentence.\n", encoding="utf-8")
    with pytest.raises(VATError, match=r"no output \(D-0\)"):
        read_generation(path)
    path.write_text("T-0\tA\nD-0\tx\tA\n", encoding="utf-8")
    with pytest.raises(VATError, match="the score 'x' of sentence 0 is no number"):
        read_generation(path)
    path.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(VATError, match="--results-path"):
        read_generation(path)
    path.unlink()
    with pytest.raises(VATError, match="it has none"):
        read_generation(tmp_path)
