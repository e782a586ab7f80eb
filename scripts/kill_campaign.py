#!/usr/bin/env python3
"""Kill trainings and recipes at random moments, start them again, and compare the ends.

    nice python scripts/kill_campaign.py                             # 50 kills
    python scripts/kill_campaign.py --cases one,cut --kills 10 --json kills.json

Each case runs once to its end, on small text made here; then it is killed (SIGKILL to all of its
processes), started again, killed again, and at last left to its end, which must be that of the
first: checkpoints to the last bit, figures of the training, results of the recipes. Half of the
kills are at any moment, half while a file is being written. Needs Linux.

Cases: one (fairseq-train), two (torchrun, two processes joined by gloo), bfloat16 (--precision),
train (fairseq-vat train), cut (checkpoint_last.pt is cut short after the kills), prepare
(fairseq-vat prepare), sweep and reproduce (the recipes sweep_prior_std and
reproduce_vae_transformer).
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import kill_campaign_cases as cases
from kill_campaign_cases import CASES, SAVE_INTERVAL
from kill_campaign_processes import GRACE, Started, say

from fairseq_vat.cli.flags import Parser, add_number, at_least
from fairseq_vat.cli.tables import table
from fairseq_vat.errors import VATError
from fairseq_vat.files import write_json

# kills of one run, before it is left to its end
_IN_ONE_RUN = 8
_COLUMNS = tuple((name, name.replace("_", " "), "d") for name in
                 ("kills", "aimed", "in_a_write", "cut", "runs", "exact", "lost"))  # fmt: skip


@dataclass
class Counts:
    """Of a case.

    Attributes:
        kills: in all.
        aimed: of these, at the writing of a file.
        in_a_write: of these, those that left a file half written under a temporary name.
        cut: checkpoints cut short that a restart then replaced.
        runs: that were killed, once or more often.
        exact: kills of runs that lost no more than a save interval and ended as if never killed.
        lost: kills of all other runs.
        problems: what was wrong with these.
    """

    kills: int = 0
    aimed: int = 0
    in_a_write: int = 0
    cut: int = 0
    runs: int = 0
    exact: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)


class Campaign:
    """The kills of one case.

    Args:
        name: of `CASES`.
        folder: for all that comes of it.
        texts: see `make_texts`.
        rng: when to kill.
    """

    def __init__(self, name: str, folder: Path, texts: Path, rng: random.Random):
        self.name, self.case, self.folder = name, CASES[name], folder
        self.texts, self.rng, self.counts = texts, rng, Counts()
        self._reference, self._seconds = folder / "unstopped", 0.0

    def run(self, kills: int) -> Counts:
        """Kill so often; what came of it."""
        self.folder.mkdir()
        began = time.monotonic()
        started = self._start(self._reference, 0)
        if started.wait():
            raise VATError(f"{self.name} fails without a kill: {started.last_line()}")
        self._seconds = time.monotonic() - began
        say(f"{self.name}: the run without a kill has ended")
        aims = [True, False] * (kills // 2) + [True] * (kills % 2)
        self.rng.shuffle(aims)
        for number in itertools.count(1):
            self._one_run(self.folder / f"killed{number}", aims)
            if not aims:
                return self.counts

    def _start(self, out: Path, number: int) -> Started:
        command = self.case.command(self.texts, out)
        return Started(command, out.with_name(f"{out.name}-{number}.log"))

    def _one_run(self, out: Path, aims: list[bool]) -> None:
        kills, problems, cut = 0, [], None
        for number in itertools.count(1):
            stale = cases.being_written(out)
            started = self._start(out, number)
            moment = self._moment(started, out, stale, aims[-1]) if aims else None
            if kills == _IN_ONE_RUN or moment is None:
                status = started.wait()
                problems += self._of_the_cut(out, cut, started)
                break
            spare = self.case.spares_workers and self.rng.random() < 0.5
            if not started.kill(spare):
                problems.append(f"workers outlived their launcher by {GRACE} s")
            kills += 1
            self._count(aims.pop(), out, stale, moment)
            if cut is not None and cases.is_cut(out):  # killed before it looked
                continue
            problems += self._of_the_cut(out, cut, started) + self._after_a_kill(out)
            cut = cases.cut_short(out, self.rng) if self.case.cut else None
        if status:
            problems.append(f"the restart fails: {started.last_line()}")
        problems += cases.differences(out, self._reference) if kills else []
        if kills:
            self.counts.runs += 1
            self.counts.lost += kills if problems else 0
            self.counts.exact += 0 if problems else kills
            self.counts.problems += [f"{out}: {problem}" for problem in problems]
            say(f"{self.name}: {'; '.join(problems) or 'exact'}, after {kills} kills")

    def _moment(
        self, started: Started, out: Path, stale: dict[Path, int], aimed: bool
    ) -> float | None:
        """Wait for the moment of a kill; seconds since the start, None if the run ended before."""
        began = time.monotonic()
        at = self.rng.uniform(0, self._seconds)
        count, delay = self.rng.randint(1, 4), self.rng.uniform(0, self.case.writing)
        writing = False
        while started.process.poll() is None:
            now = time.monotonic() - began
            if not aimed:
                if now >= at:
                    return now
                time.sleep(min(0.01, at - now))
                continue
            before, writing = writing, bool(cases.being_written(out).items() - stale.items())
            count -= writing and not before
            if not count:
                time.sleep(delay)
                return now + delay if started.process.poll() is None else None
            time.sleep(0.0005)
        return None

    def _count(self, aimed: bool, out: Path, stale: dict[Path, int], moment: float) -> None:
        hit = bool(cases.being_written(out).items() - stale.items())
        self.counts.kills += 1
        self.counts.aimed += aimed
        self.counts.in_a_write += hit
        words = [f"{self.name}: kill {self.counts.kills}", f"after {moment:.2f} s"]
        words += ["aimed"] * aimed + ["in a write"] * hit
        if self.case.trains and not cases.is_cut(out):
            words.append(f"saved: {cases.updates_of(out / 'checkpoint_last.pt')} updates")
        say(", ".join(words))

    def _after_a_kill(self, out: Path) -> list[str]:
        problems = cases.half_made(out, self._reference)
        if self.case.trains and not problems:
            lost = cases.updates_lost(out)
            problems += [f"lost {lost} updates"] if lost > SAVE_INTERVAL else []
        return problems

    def _of_the_cut(self, out: Path, cut: int | None, started: Started) -> list[str]:
        """What is wrong with the start after a checkpoint was cut short, if it came so far."""
        if cut is None or "Loaded checkpoint" not in started.log.read_text(errors="replace"):
            return []
        self.counts.cut += 1
        updates = cases.resumed_after_cut(started.log)
        if updates is None:
            return ["the restart doesn't tell of the checkpoint that was cut"]
        return [f"lost {cut - updates} updates"] if cut - updates > SAVE_INTERVAL else []


def shares(names: Sequence[str], kills: int) -> dict[str, int]:
    """So many kills over the cases, by their weights; at least one each."""
    weights = {name: CASES[name].weight for name in names}
    found = {name: max(1, kills * w // sum(weights.values())) for name, w in weights.items()}
    for name in itertools.cycle(names):
        if sum(found.values()) >= kills:
            return found
        found[name] += 1


def _cases(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: must be among {' '.join(CASES)}")
    return list(dict.fromkeys(names))


def run(names: Sequence[str], kills: int, seed: int, folder: Path) -> dict[str, Counts]:
    """All cases, one after the other; their counts by name."""
    texts = folder / "texts"
    cases.make_texts(texts)
    prepared = Started(cases.prepare_command(texts, texts / "prepared"), folder / "prepare.log")
    if prepared.wait():
        raise VATError(f"fairseq-vat prepare failed: {prepared.last_line()}")
    return {
        name: Campaign(name, folder / name, texts, random.Random(f"{seed} {name}")).run(share)
        for name, share in shares(names, kills).items()
    }


def main() -> None:
    parser = Parser(
        "kill_campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_number(parser, "--kills", "over all cases", 50, at_least(1))
    parser.add_argument("--cases", type=_cases, default=list(CASES), metavar="A,B,..")
    add_number(parser, "--seed", "of the moments", 1, at_least(0))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="is made, and keeps all runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the counts, and what was wrong")
    args = parser.parse_args()
    with parser.one_line_errors(), tempfile.TemporaryDirectory(prefix="kill_campaign.") as folder:
        if args.keep:
            args.keep.mkdir(parents=True)
        found = run(args.cases, args.kills, args.seed, Path(args.keep or folder).resolve())
        rows = [{"case": name, **asdict(counts)} for name, counts in found.items()]
        total = {key: sum(row[key] for row in rows) for key, _, _ in _COLUMNS}
        print(table([*rows, {"case": "all", **total}], (("case", "case", "s"), *_COLUMNS)))
        for problem in itertools.chain.from_iterable(counts.problems for counts in found.values()):
            print(problem)
        if args.json:
            write_json(args.json, {row.pop("case"): row for row in rows})
    sys.exit(1 if total["lost"] else 0)


if __name__ == "__main__":
    main()
