"""scripts/time_forward.py: what it adds up, and that it goes on where it was stopped."""

from __future__ import annotations

import json

import pytest
import time_forward

SYSTEMS = ["vae_gru", "gru_decoder_lm"]
FORWARD_SECONDS = time_forward.forward_seconds


@pytest.fixture
def run(data_dir, tmp_path, capsys, monkeypatch):
    """Runs it on three of the toy data's batches; a pass takes 1, 2, 3, .. seconds."""

    def measured(*flags: str, passes: int) -> dict:
        """`passes`: how many there may be, those to warm up included."""
        clock = iter(range(1, passes + 1))

        def timed(*args) -> int:
            assert FORWARD_SECONDS(*args) > 0
            return next(clock)

        monkeypatch.setattr(time_forward, "forward_seconds", timed)
        every = ["time_forward.py", str(data_dir), "--archs", ",".join(SYSTEMS), "--cpu", "--json"]
        every += ["-V", "60", "--batches", "3", "--repeats", "2", "--precision", "float32", *flags]
        monkeypatch.setattr("sys.argv", every)
        time_forward.main()
        assert next(clock, None) is None
        return json.loads(capsys.readouterr().out)

    return measured


def test_systems_take_turns_and_batches_are_scaled_to_all(run):
    found = run(passes=4 + 12)
    assert found["batches"] == 3 and found["batches_in_all"] == 13  # 400 sentences, 32 each
    for system, first in zip(SYSTEMS, (5, 6), strict=True):
        repeats = [sum(range(start, start + 6, 2)) * 13 / 3 for start in (first, first + 6)]
        assert found["spread"][system] == pytest.approx(repeats)
        assert found["seconds"][system] == pytest.approx(sum(repeats) / 2)


def test_a_stopped_measurement_goes_on(run, tmp_path):
    record = tmp_path / "times.jsonl"
    flags = ("--record", str(record))
    whole = run(*flags, passes=4 + 12)
    head, *lines = record.read_text().splitlines(keepends=True)
    assert [sum(json.loads(line).values()) for line in lines] == [11, 15, 19, 23, 27, 31]
    assert run(*flags, passes=4) == whole
    record.write_text(head + "".join(lines[:4]) + lines[4][:9])  # killed while it wrote
    again = run(*flags, passes=4 + 4)  # two batches more, of 5 + 6 and 7 + 8
    totals = [json.loads(line) for line in record.read_text().splitlines()[1:]]
    assert [sum(line.values()) for line in totals] == [11, 15, 19, 23, 11, 15]
    for system in SYSTEMS:
        times = [line[system] for line in totals]
        repeats = [sum(part) * 13 / 3 for part in (times[:3], times[3:])]
        assert again["spread"][system] == [min(repeats), max(repeats)]


def test_the_record_of_other_settings_is_refused(run, tmp_path, capsys):
    record = tmp_path / "times.jsonl"
    run("--record", str(record), passes=4 + 12)
    kept = record.read_text()
    with pytest.raises(SystemExit) as left:
        run("--record", str(record), "-V", "61", passes=4)
    assert left.value.code == 1 and record.read_text() == kept
    error = capsys.readouterr().err
    assert error.endswith(
        f"{record}: measured with other settings or data; remove it, or give another\n"
    )
