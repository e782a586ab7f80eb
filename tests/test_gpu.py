"""Half precision: what a GPU alone can show (`pytest -m gpu`), and what shows on any CPU."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from helpers import commands

from fairseq_vat.latent import noise
from fairseq_vat.latent.gaussian import LOG_VARIANCE_MAX, LOG_VARIANCE_MIN, DiagonalGaussian
from fairseq_vat.latent.prior import Prior
from fairseq_vat.models.vat_transformer import VATModel

SCRIPTS = Path(__file__).parent.parent / "scripts"
FLAGS = ["--dropout", "0", "--kl-weight", "0.1", "--log-interval", "1", "--max-update", "30"]
EXTREMES = [60_000.0, -60_000.0]
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU, and commands that use it; the test is skipped where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    for name in ("PLUGIN_FLAGS", "TRAIN_FLAGS"):
        flags = [flag for flag in getattr(commands, name) if flag != "--cpu"]
        monkeypatch.setattr(commands, name, flags)
    return torch.device("cuda")


def train(data: Path, save_dir: Path, *flags: str) -> dict[int, dict[str, str]]:
    """30 updates by one process; what it logged at each."""
    one = ["--distributed-world-size", "1"]
    return commands.updates(commands.train(data, save_dir, *FLAGS, *one, *flags))


def assert_learns(figures: dict[int, dict[str, str]]) -> None:
    """Every number is finite, no update was skipped for good, and the loss goes down."""
    for update, line in figures.items():
        for name in ("loss", "nll_loss", "kl_loss", "kl_nats", "gnorm"):
            assert math.isfinite(float(line[name])), (update, name)
    losses = [float(line["nll_loss"]) for line in figures.values()]
    assert max(figures) == 30 and len(figures) > 20
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.3


def assert_close_losses(
    one: dict[int, dict[str, str]], other: dict[int, dict[str, str]], rel: float
) -> None:
    """Nearly equal losses, wherever both made an update."""
    both = one.keys() & other.keys()
    assert len(both) > 20
    for update in both:
        for name in ("nll_loss", "kl_loss"):
            expected = pytest.approx(float(one[update][name]), rel=rel)
            assert float(other[update][name]) == expected, (update, name)


def build(data: Path):
    """Criterion, an untrained tiny model and a batch."""
    flags = [str(data), *commands.TRAIN_FLAGS, "--dropout", "0", "--kl-weight", "0.1"]
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), flags)
    )
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[i] for i in range(8)])
    return task.build_criterion(cfg.criterion), task.build_model(cfg.model), batch


def forward_and_backward(
    data: Path, device: torch.device, dtype: torch.dtype, logvar: float | None
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss a token and gradients of a model in `dtype` with log-variances all at `logvar`."""
    criterion, model, batch = build(data)
    if logvar is not None:
        with torch.no_grad():
            model.encoder.head.logvar.weight.zero_()
            model.encoder.head.logvar.bias.fill_(logvar)
    model = model.to(device=device, dtype=dtype)
    model.train()
    model.set_num_updates(0)
    net_input = {name: x.to(device) for name, x in batch["net_input"].items()}
    sample = {**batch, "net_input": net_input, "target": batch["target"].to(device)}
    loss, sample_size, logged = criterion(model, sample)
    # as fairseq's optimizer for half precision has it: gradients of the loss a token
    (loss / sample_size).backward()
    for name in ("loss", "nll_loss", "kl"):
        assert math.isfinite(float(logged[name])), name
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(loss) / sample_size, gradients


def assert_finite_at_extremes(
    data: Path, device: torch.device, dtype: torch.dtype, logvar: float
) -> None:
    loss, gradients = forward_and_backward(data, device, dtype, logvar)
    assert math.isfinite(loss)
    assert {"encoder.head.mean.weight", "encoder.head.logvar.bias"} <= gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == dtype
        assert bool(gradient.isfinite().all()), name
    # something reaches the encoder past the latents
    assert float(gradients["encoder.head.mean.weight"].abs().max()) > 0


# ---- on any CPU


@pytest.fixture(scope="module")
def single(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The same training in single precision."""
    return train(data_dir, tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize(
    "flags", [["--fp16", "--fp16-no-flatten-grads"], ["--memory-efficient-fp16"]]
)
def test_half_precision_trains_on_the_cpu(
    flags: list[str], single: dict, data_dir: Path, tmp_path: Path
):
    half = train(data_dir, tmp_path, *flags)
    assert_learns(half)
    assert_learns(single)
    assert "loss_scale" in half[30] and "loss_scale" not in single[30]
    assert_close_losses(single, half, rel=0.05)


@pytest.mark.parametrize("logvar", EXTREMES)
@pytest.mark.parametrize("dtype", HALVES)
def test_extreme_log_variances(dtype: torch.dtype, logvar: float, data_dir: Path):
    assert_finite_at_extremes(data_dir, torch.device("cpu"), dtype, logvar)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_gives_the_same_loss(dtype: torch.dtype, data_dir: Path):
    cpu = torch.device("cpu")
    expected, _ = forward_and_backward(data_dir, cpu, torch.float32, None)
    loss, _ = forward_and_backward(data_dir, cpu, dtype, None)
    assert loss == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("logvar", [*EXTREMES, float("inf"), float("-inf")])
def test_gaussian_in_half_precision(logvar: float, dtype: torch.dtype):
    mean = torch.zeros(3, 2, 4, dtype=dtype)
    posterior = DiagonalGaussian.from_outputs(mean, torch.full_like(mean, logvar))
    assert posterior.logvar.dtype == Prior(0.4).kl(posterior).dtype == torch.float32
    bound = LOG_VARIANCE_MAX if logvar > 0 else LOG_VARIANCE_MIN
    assert bool(posterior.logvar.eq(bound).all())
    # ten times what Box-Muller can give in 32 bits is still finite in half precision
    assert bool(posterior.sample(torch.full(mean.shape, 67.0)).to(dtype).isfinite().all())
    assert bool(Prior(0.4).kl(posterior).isfinite().all())


# ---- on a GPU


@pytest.mark.gpu
def test_gpu_half_precision_trains_and_samples(gpu: torch.device, data_dir: Path, tmp_path: Path):
    full = train(data_dir, tmp_path / "full")
    half = train(data_dir, tmp_path / "half", "--fp16")
    assert_learns(half)
    assert_learns(full)
    assert "loss_scale" in half[30]
    assert_close_losses(full, half, rel=0.05)
    output = commands.generate(
        *(data_dir, tmp_path / "half" / "checkpoint_last.pt", "--fp16"),
        *("--latent-sampling", "--latent-samples", "3", "--nbest", "1"),
    )
    found = commands.hypotheses(output)
    assert sorted(found) == list(range(20))
    assert all(len(drawn) == 3 for drawn in found.values())
    scores = [float(score) for score in re.findall(r"^H-\d+\t(\S+)", output, re.MULTILINE)]
    assert all(map(math.isfinite, scores))


@pytest.mark.gpu
def test_gpu_noise_is_the_cpus(gpu: torch.device):
    tokens_BT = torch.randint(4, 40, (5, 9), generator=torch.Generator().manual_seed(1))
    keys_B = noise.sentence_keys(tokens_BT, padding_idx=1)
    assert torch.equal(noise.sentence_keys(tokens_BT.to(gpu), padding_idx=1).cpu(), keys_B)
    for seed in (0, 1, (3 << 40) + 7):
        here = noise.normal(keys_B, 9, 33, seed, draw=2)
        there = noise.normal(keys_B.to(gpu), 9, 33, seed, draw=2)
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("logvar", EXTREMES)
@pytest.mark.parametrize("dtype", HALVES)
def test_gpu_extreme_log_variances(
    dtype: torch.dtype, logvar: float, gpu: torch.device, data_dir: Path
):
    assert_finite_at_extremes(data_dir, gpu, dtype, logvar)


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["token", "sentence"])
def test_gpu_moves_as_the_cpu(level: str, gpu: torch.device, data_dir: Path, tmp_path: Path):
    """`vat.cuda()` moves all of it, and the latents are the CPU's."""
    flags = ("--latent-level", level, "--dropout", "0", "--max-update", "30")
    commands.train(data_dir, tmp_path, *flags)
    here, there = (
        VATModel.from_pretrained(tmp_path, data_name_or_path=str(data_dir), device="cpu")
        for _ in range(2)
    )
    there.cuda()
    lines = ["w1 w2 w3", "w9", "w3 w3 w8 w0 w1 w7"]
    assert there.device.type == "cuda"
    for ours, expected in zip(there.encode(lines), here.encode(lines), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    settings = {"beam": 2, "max_len_b": 10}
    for vat in (there, there.half()):
        assert vat.embed(lines).shape == here.embed(lines).shape
        assert vat.decode(vat.encode(lines), **settings) == vat.reconstruct(lines, **settings)
        assert [len(found) for found in vat.sample(lines, samples=2, **settings)] == [2, 2, 2]
        assert len(vat.interpolate(lines[:1], lines[1:2], 3, "spherical", **settings)[0]) == 3
        assert len(vat.arithmetic(*([line] for line in lines), **settings)) == 1
        assert len(vat.sample_prior(2, **settings)) == 2
        if level == "token":
            assert len(vat.vary(["w1 [w2]"], samples=3, **settings)[0]) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES)
def test_gpu_gives_the_cpus_loss(dtype: torch.dtype, gpu: torch.device, data_dir: Path):
    expected, _ = forward_and_backward(data_dir, torch.device("cpu"), torch.float32, None)
    single, _ = forward_and_backward(data_dir, gpu, torch.float32, None)
    assert single == pytest.approx(expected, rel=1e-4)
    half, _ = forward_and_backward(data_dir, gpu, dtype, None)
    assert half == pytest.approx(expected, rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "fp16"])
def test_gpu_benchmark(precision: str, gpu: torch.device):
    """Stock as well, but in bfloat16."""
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--device", "cuda", "--json"]
    command += ["--precisions", precision, "--systems", "stock", "vat", "vae_lstm"]
    command += ["--vocabulary", "500", "--tokens", "200", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    expected = ["vat", "vae_lstm"] if precision == "bfloat16" else ["stock", "vat", "vae_lstm"]
    assert [case["system"] for case in figures["cases"]] == expected
    assert all(case["peak_mib"] > 0 for case in figures["cases"])
