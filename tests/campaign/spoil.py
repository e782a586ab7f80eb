"""What can be done to an input's files before its command: one short verb each.

set FILE KEY VALUE      a checkpoint's value; KEY is dotted, VALUE a Python literal, or PAYLOAD
                        for text that makes the file `ran` if it is evaluated
pickle FILE KEY         an object in its place that makes `ran` if it is unpickled
nan FILE                a parameter of a checkpoint that isn't finite
cut FILE BYTES          all but the last
poke FILE AT KIND N     a number, as `struct` packs it
write FILE TEXT         and its folders; \\n, \\t and \\xff are what they are in Python
append FILE TEXT
replace FILE OLD NEW
lines FILE N            the first alone
remove PATH, move PATH TO, copy PATH TO, folder PATH, link TO PATH
"""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import struct
from pathlib import Path

RAN = "ran"  # what exists where a payload was run


def spoil(folder: Path, text: str) -> None:
    """Do all of it, separated by semicolons, in a folder."""
    for part in filter(None, map(str.strip, text.split(" ; "))):
        verb, first, *others = shlex.split(part)
        _VERBS[verb](folder, folder / unescaped(first), *map(unescaped, others))


def unescaped(word: str) -> str:
    """With what backslashes stand for; bytes that are no UTF-8 as surrogates."""
    if "\\" not in word:
        return word
    raw = word.encode("latin-1", "backslashreplace").decode("unicode_escape")
    return (
        raw.encode("latin-1").decode("utf-8", "surrogateescape") if raw.isascii() is False else raw
    )


class _Pickled:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _edit(path: Path, key: str, value: object) -> None:
    import torch  # what only reads the table is quick without

    state = torch.load(path, weights_only=True)
    *outer, last = key.split(".")
    place = state
    for name in outer:
        if not isinstance(place.get(name), dict):
            place[name] = {}
        place = place[name]
    place[last] = value
    torch.save(state, path)


def _set(folder: Path, path: Path, key: str, value: str) -> None:
    payload = f"[__import__('pathlib').Path({str(folder / RAN)!r}).touch()]"
    numbers = {name: float(name) for name in ("nan", "inf")}
    value = repr(value) if value == "PAYLOAD" else value
    made = numbers[value] if value in numbers else ast.literal_eval(value)
    _edit(path, key, _with_payload(made, payload))


def _with_payload(value: object, payload: str) -> object:
    if isinstance(value, dict):
        return {key: _with_payload(item, payload) for key, item in value.items()}
    return payload if value == "PAYLOAD" else value


def _pickle(folder: Path, path: Path, key: str) -> None:
    _edit(path, key, _Pickled(folder / RAN))


def _nan(folder: Path, path: Path) -> None:
    import torch  # what only reads the table is quick without

    state = torch.load(path, weights_only=True)
    next(x for x in state["model"].values() if x.is_floating_point()).view(-1)[0] = float("nan")
    torch.save(state, path)


def _cut(folder: Path, path: Path, size: str) -> None:
    path.write_bytes(path.read_bytes()[: -int(size)])


def _poke(folder: Path, path: Path, at: str, kind: str, value: str) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(kind, content, int(at), int(value))
    path.write_bytes(content)


def _write(folder: Path, path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def _append(folder: Path, path: Path, text: str) -> None:
    _write(folder, path, path.read_text(errors="surrogateescape") + text)


def _replace(folder: Path, path: Path, old: str, new: str) -> None:
    text = path.read_text(errors="surrogateescape")
    assert old in text, f"{path} has no {old!r}"
    _write(folder, path, text.replace(old, new))


def _lines(folder: Path, path: Path, count: str) -> None:
    _write(folder, path, "".join(path.read_text().splitlines(keepends=True)[: int(count)]))


def _remove(folder: Path, path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _copy(folder: Path, path: Path, to: str) -> None:
    (folder / to).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(path, folder / to) if path.is_dir() else shutil.copy(path, folder / to)


def _move(folder: Path, path: Path, to: str) -> None:
    (folder / to).parent.mkdir(parents=True, exist_ok=True)
    path.rename(folder / to)


_VERBS = {
    "set": _set,
    "pickle": _pickle,
    "nan": _nan,
    "cut": _cut,
    "poke": _poke,
    "write": _write,
    "append": _append,
    "replace": _replace,
    "lines": _lines,
    "remove": _remove,
    "move": _move,
    "copy": _copy,
    "folder": lambda folder, path: path.mkdir(parents=True),
    "link": lambda folder, path, to: (folder / to).symlink_to(path),
}
