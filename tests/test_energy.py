"""Energy and emissions of a training, by hand."""

import pytest
from energy import energy

from fairseq_vat.errors import VATError


def test_an_epoch_of_the_paper(tmp_path):
    """20 hours at 250 W and 197 g a kWh: the VAT paper's 0.99 kg."""
    lines = [
        f"epoch 001: {n} / 99 loss=1, wpb=1000, num_updates={n}, train_wall=36000" for n in (10, 20)
    ]
    (tmp_path / "log").write_text("\n".join([*lines, lines[-1], "epoch 001 | loss 1", ""]))
    found = energy(tmp_path / "log", 250, 197)
    assert found["hours"] == 20 and found["updates"] == 20
    assert found["million_tokens"] == pytest.approx(0.02)
    assert found["kwh"] == pytest.approx(5) and found["kg"] == pytest.approx(0.985)
    assert energy(tmp_path / "log", 250, 197, 4)["kwh"] == pytest.approx(20)


def test_lines_too_short_for_whole_seconds(tmp_path):
    lines = [f"epoch 001: {n} / 99 loss=1, num_updates={n}, train_wall={n - 1}" for n in (1, 2)]
    (tmp_path / "log").write_text("\n".join([*lines, ""]))
    with pytest.raises(VATError, match=r"log: its lines are of 0\.5 seconds"):
        energy(tmp_path / "log", 250, 197)


def test_a_log_of_epochs_alone_has_no_hours(tmp_path):
    (tmp_path / "log").write_text("epoch 001 | loss 1 | num_updates 9\n")
    with pytest.raises(VATError, match="log: has no line from within an epoch"):
        energy(tmp_path / "log", 250, 197)
