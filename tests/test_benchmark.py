"""scripts/benchmark.py and scripts/parity.py, on toy models and data."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from helpers import commands

from fairseq_vat.errors import VATError


def test_parity(data_dir, tmp_path, capsys, monkeypatch):
    import parity

    calls = []

    def train(command, stdout, stderr):
        calls.append(command)
        save_dir = Path(command[command.index("--save-dir") + 1])
        try:
            commands.train(data_dir, save_dir, *command[4:])
        except VATError as error:
            stdout.write(str(error))
            return subprocess.CompletedProcess(command, 1)
        finally:
            commands.close_log_files()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(parity.subprocess, "run", train)

    def run(*flags, status=0):
        every = ["parity.py", data_dir, tmp_path / "out", "--arch", "vat_transformer_tiny", *flags]
        monkeypatch.setattr("sys.argv", list(map(str, every)))
        capsys.readouterr()
        if status:
            with pytest.raises(SystemExit) as left:
                parity.main()
            assert left.value.code == status
            return capsys.readouterr().err
        parity.main()
        return capsys.readouterr().out

    found = json.loads(run("--updates", "6", "--seeds", "1", "2", "--json"))
    assert [call[call.index("--precision") + 1] for call in calls] == ["float32", "bfloat16"] * 2
    for precision in ("float32", "bfloat16"):
        losses = [found["runs"][precision][seed]["loss"] for seed in ("1", "2")]
        measure = found["measures"]["loss"][precision]
        assert losses[0] != losses[1]
        assert measure["mean"] == pytest.approx(sum(losses) / 2)
        assert measure["spread"] == pytest.approx(abs(losses[0] - losses[1]))
    assert abs(found["measures"]["loss"]["difference"]) < 0.1 * losses[0]
    assert json.loads((tmp_path / "out/parity.json").read_text()) == found

    lines = run("--updates", "6", "--seeds", "1", "2").splitlines()
    assert len(calls) == 4  # what is done isn't made again
    heads = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert heads[0] == ["run", *parity.MEASURES]
    assert [row[0] for row in heads[2:]] == [
        *(f"{precision}, seed {seed}" for precision in ("float32", "bfloat16") for seed in (1, 2)),
        *("float32, spread", "bfloat16, spread", "difference of means"),
    ]
    difference = found["measures"]["loss"]["difference"]
    assert heads[-1][1] == f"{difference:+.3f}"
    log = tmp_path / "out/float32-1/train.log"  # stopped before its last checkpoint: goes on
    log.write_text("".join(line for line in log.open() if "| valid " not in line))
    for made in (*log.parent.glob("*.pt"), log.parent / "metrics.jsonl"):
        made.unlink()
    assert run("--updates", "6", "--seeds", "1", "2").splitlines() == lines
    assert len(calls) == 5
    assert "made with other flags" in run("--updates", "7", status=1)
    for path in tmp_path.glob("out/*/*.pt"):
        path.unlink()  # figures of a model that is gone are nobody else's
    other = ("--updates", "6", "--seeds", "1", "--", "--prior-std", "0.5")
    assert "made with other flags" in run(*other, status=1)
    assert "see" in run("--updates", "6", "--seeds", "3", "--", "--prior-std", "-1", status=1)


@pytest.mark.slow
def test_benchmark(capsys, monkeypatch):
    import benchmark

    flags = ["--systems", "stock", "vat", "--vocabulary", "60", "--tokens", "80", "--threads", "1"]
    flags += ["--precisions", "float32", "bfloat16", "--repeats", "1", "--json"]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *flags])
    monkeypatch.setattr(benchmark, "SQUARE", 512)
    start = subprocess.run

    def one_process_of_three(command, **settings):  # each takes seconds to begin
        if command[-2] == "bfloat16":
            return start(command, **settings)
        return subprocess.CompletedProcess(command, 0, "50.0\n")

    monkeypatch.setattr(benchmark.subprocess, "run", one_process_of_three)
    benchmark.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    peaks = figures["product"]["gflops_per_cpu_second"]
    cases = {(case["system"], case["precision"]): case for case in figures["cases"]}
    vat = {("vat", "float32"), ("vat", "bfloat16")}
    assert cases.keys() == {("stock", "float32"), *vat} and peaks.keys() == {"float32", "bfloat16"}
    for (system, precision), case in cases.items():
        assert case["tokens_per_second"] == pytest.approx(80 / case["seconds"])
        assert case["cpu_seconds"] > 0 and case["peak_mib"] > 0 and peaks[precision] > 0
        assert case["share_of_peak"] > 0
        base = cases["stock", "float32"]
        assert ("speed_ratio" in case) == (system == "vat")
        if system == "vat":
            assert case["speed_ratio"] == base["seconds"] / case["seconds"]
            assert case["memory_ratio"] == case["peak_mib"] / base["peak_mib"]
    # one step's operations, at whatever speed of the machine's in either type
    single, half = (
        case["share_of_peak"] * case["cpu_seconds"] * peaks[case["precision"]]
        for case in figures["cases"]
        if case["system"] == "vat"
    )
    assert half == pytest.approx(single)
    benchmark.show(figures)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[0] for line in lines if line.startswith(("stock", "vat"))]
    assert rows == [system for system, _ in cases] * (len(rows) // len(cases)) != []
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("system", ["stock", "vat", "vae_transformer", "transformer_decoder_lm"])
def test_the_operations_of_a_step_are_those_that_torch_counts(system, tmp_path):
    """With logits, so that the output projection is a product that torch can see."""
    import benchmark_systems
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    trainer = benchmark_systems.build_trainer(system, "float32", 60, tmp_path, cpu=True)
    dictionary = trainer.task.source_dictionary
    (batch,) = benchmark_systems.make_batches(system, dictionary, 96, 1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = trainer.model(**batch["net_input"])[0]
        logits.sum().backward()
    found = benchmark_systems.step_operations(trainer.model, batch)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.05)
