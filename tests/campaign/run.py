"""Runs the campaign: every input of the table, and counts of how the commands took them.

    PYTHONPATH=tests python -m campaign.run [--only WORD] [--fresh N] [--work DIR] [--verbose]

How an input may end:

- clear: a status that isn't 0 and one line that says what is wrong and where, nothing half-written;
- unclear: a traceback, no line, another one than is expected, a signal, a hang, a spoilt file;
- accepted wrongly: a status of 0 where an error is expected, silence where a warning is, or a
  payload that ran;
- accepted: a status of 0, with the warning that is expected, if one is.

The exit status is 1 if there is an unclear one or one accepted wrongly that isn't known.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from campaign import commands, material
from campaign.spoil import RAN, spoil
from campaign.table import Input, read_tables

CLEAR, UNCLEAR, WRONGLY, ACCEPTED = "clear", "unclear", "accepted wrongly", "accepted"
# of what a command was doing when it stopped
_HALF = re.compile(r"\.tmp$|\.partial$|\.new$|~$")
# what may come before: a command that is shown before it runs, the plugin's warnings, fairseq's
# log, whose records may have further lines
_SHOWN = re.compile(
    r"\+ |\S+: warning: |(DEBUG|INFO|WARNING|ERROR):\S+:|\d{4}-\S+ \S+ \| [A-Z]+ \| |\s|\)$"
)


def main() -> int:
    """Run the inputs that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", help="inputs whose group and name have this in them")
    parser.add_argument("--fresh", type=int, default=0, help="so many again, as new processes")
    parser.add_argument("--work", type=Path, help="keep what is made here, and use it again")
    parser.add_argument("--verbose", action="store_true", help="print every input's line")
    args = parser.parse_args()
    inputs = [item for item in read_tables() if args.only in f"{item.group}: {item.name}"]
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        commands.prepare()
        template = work / "template"
        if not (template / "model.pt").exists():
            material.make(template)
        failed = _run_all(inputs, work, args.verbose, fresh=False)
        if args.fresh:
            print("as new processes:")
            failed += _run_all(
                inputs[:: max(1, len(inputs) // args.fresh)], work, False, fresh=True
            )
    return int(bool(failed))


def _run_all(inputs: list[Input], work: Path, verbose: bool, fresh: bool) -> int:
    counts: dict[str, Counter] = {}
    known, failed = [], 0
    for item in tqdm(inputs, unit=" inputs", leave=False, disable=None):
        how, told = judged(item, work, fresh)
        if item.kind == "known" and how != ACCEPTED and how != CLEAR:
            known.append(f"{item.group}: {item.name}: {item.fragment}")
            how = "known"
        counts.setdefault(item.group, Counter())[how] += 1
        wrong = how in (UNCLEAR, WRONGLY)
        failed += wrong
        if wrong or verbose:
            print(f"{how}: {item.group}: {item.name}: {told}", flush=True)
    columns = (CLEAR, UNCLEAR, WRONGLY, ACCEPTED, "known")
    print(f"{'group':16}{'inputs':>8}" + "".join(f"{name:>18}" for name in columns))
    counts["all"] = sum(counts.values(), Counter())
    for group, count in counts.items():
        figures = "".join(f"{count[name]:18}" for name in columns)
        print(f"{group:16}{count.total():8}{figures}")
    for line in known:
        print(f"known: {line}")
    return failed


def judged(item: Input, work: Path, fresh: bool = False) -> tuple[str, str]:
    """How one input ended, and what was told."""
    folder = work / "input"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "template", folder)
    spoil(folder, item.spoil)
    before = _contents(folder)
    ended = commands.run(
        item.words,
        folder,
        stdin=str(folder / item.stdin if item.stdin else work / "template" / "sentences.txt"),
        stdout=item.stdout and (item.stdout if item.stdout == "-" else str(folder / item.stdout)),
        environment=item.environment,
        fresh=fresh,
    )
    after = _contents(folder)
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if any(Path(path).name == RAN for path in after):
        return WRONGLY, "a payload was run"
    if ended.status == 0:
        log = ended.stdout + ended.stderr
        if item.kind == "error":
            return WRONGLY, last or "no word"
        if item.kind == "warning" and item.fragment not in log:
            return WRONGLY, f"no warning: {last or 'no word'}"
        return (UNCLEAR, "a traceback") if "Traceback" in log else (ACCEPTED, last)
    told = json.dumps(last or "no word", ensure_ascii=False)
    if ended.status < 0:
        return UNCLEAR, f"signal {-ended.status} after {ended.seconds:.0f} s: {told}"
    if "Traceback" in ended.stderr or "Traceback" in ended.stdout:
        return UNCLEAR, f"a traceback: {told}"
    if not re.match(r"\S+( \w+)?: (error: |interrupted)|usage: ", last):
        return UNCLEAR, f"no error's line: {told}"
    if item.kind in ("warning", "accepted"):
        return UNCLEAR, f"refused: {told}"
    if item.kind == "error" and item.fragment not in last:
        return UNCLEAR, f"another line: {told}"
    if before_it := [line for line in lines[:-1] if not _SHOWN.match(line)]:
        return UNCLEAR, f"{len(before_it)} lines before: {before_it[0]!r} ... {told}"
    if half := sorted(path for path in after if path not in before and _HALF.search(path)):
        return UNCLEAR, f"left behind: {half}"
    if lost := sorted(path for path in before if after.get(path) != before[path]):
        return UNCLEAR, f"spoilt: {lost}"
    return CLEAR, told


def _contents(folder: Path) -> dict[str, str]:
    """A hash of every file but a training's log and lock."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "train.log", "metrics.jsonl")
    }


if __name__ == "__main__":
    sys.exit(main())
