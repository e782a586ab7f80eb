"""How text becomes the tokens of a data directory, kept with the data and with every checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path, read_json, sha256, write_json

if TYPE_CHECKING:
    import torch

NOTE = "subwords.json"
# fairseq's --bpe, its settings that name a file, and what the file is called here
KINDS = {
    "sentencepiece": {"sentencepiece_model": "sentencepiece.model"},
    "gpt2": {"gpt2_encoder_json": "vocab.json", "gpt2_vocab_bpe": "merges.txt"},
    "bert": {"bpe_vocab_file": "vocab.txt"},
}


@dataclass(frozen=True)
class SubwordFiles:
    """fairseq's ``--bpe`` with the content of its files."""

    kind: str  # of `KINDS`, or ``words`` where tokens are words between spaces
    # content by setting, such as ``{"sentencepiece_model": b"..."}``
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.files) != set(KINDS.get(self.kind, {})) or self.kind not in ("words", *KINDS):
            raise VATError(f"no subwords of kind {self.kind!r} with files {sorted(self.files)}")

    @classmethod
    def of(cls, kind: str, paths: Mapping[str, str | os.PathLike]) -> Self:
        """Of the files of a command line."""
        return cls(kind, {setting: Path(path).read_bytes() for setting, path in paths.items()})

    @classmethod
    def in_folder(cls, kind: str, folder: str | os.PathLike) -> Self:
        """Of the files of a folder, by their usual names; what they hold enters checkpoints."""
        paths = {setting: Path(folder) / name for setting, name in KINDS.get(kind, {}).items()}
        for path in paths.values():
            if path.is_symlink() and path.resolve().parent != path.parent.resolve():
                raise VATError(f"{path}: is a link to another folder; copy the file")
        return cls.of(kind, paths)

    @classmethod
    def read(cls, folder: str | os.PathLike) -> Self | None:
        """What `write` left in a folder; None where nothing says how its text became tokens.

        A data directory that was made before there was such a note is told by the sentencepiece
        model beside it, if it is the very one that the data were made with.
        """
        note = read_json(Path(folder) / NOTE)
        if note is None:
            return cls._beside(Path(folder))
        kind = note.get("bpe") if isinstance(note, dict) else None
        kind = kind if isinstance(kind, str) else None
        if kind != "words" and kind not in KINDS:
            raise VATError(f"{Path(folder) / NOTE}: bpe must be words or one of {', '.join(KINDS)}")
        try:
            return cls.in_folder(kind, folder)
        except FileNotFoundError as error:
            raise VATError(f"{error.filename}: missing; {Path(folder) / NOTE} needs it") from None

    @classmethod
    def _beside(cls, folder: Path) -> Self | None:
        made_from = read_json(folder / "made_from.json")
        if not isinstance(made_from, dict):
            return None
        inner = made_from.get("made_from")
        digest = inner.get("model_sha256") if isinstance(inner, dict) else None
        model = folder.parent / "sentencepiece.model"
        if digest is None or not model.is_file() or sha256(model) != digest:
            return None
        return cls.of("sentencepiece", {"sentencepiece_model": model})

    def write(self, folder: str | os.PathLike) -> dict[str, str]:
        """Write the files and the note; the paths by setting."""
        paths = {}
        for setting, name in KINDS.get(self.kind, {}).items():
            with atomic_path(Path(folder) / name) as temporary:
                temporary.write_bytes(self.files[setting])
            paths[setting] = str(Path(folder) / name)
        write_json(Path(folder) / NOTE, {"bpe": self.kind})
        return paths

    def state(self) -> dict[str, Any]:
        """Plain data and tensors, for a checkpoint."""
        import torch  # here, as `fairseq-vat prepare` needs none of it

        files = {
            setting: torch.frombuffer(bytearray(content), dtype=torch.uint8)
            for setting, content in self.files.items()
        }
        return {"bpe": self.kind, "files": files}

    @classmethod
    def from_state(cls, state: Any) -> Self:
        """What `state` gave."""
        import torch

        try:
            if not all(is_plain(content, torch.uint8) for content in state["files"].values()):
                raise ValueError("a file is no bytes")
            files = {name: bytes(content.tolist()) for name, content in state["files"].items()}
            return cls(state["bpe"], files)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise VATError(f"the checkpoint's subwords can't be read: {error}") from None


def is_plain(value: Any, dtype: torch.dtype) -> bool:
    """Whether a checkpoint's value is a vector that lies in memory as its length says.

    A view can have any length, and a tensor of another layout or without content can't be read.
    """
    import torch

    return (
        isinstance(value, torch.Tensor)
        and (value.layout, value.device.type) == (torch.strided, "cpu")
        and (value.dtype, value.dim()) == (dtype, 1)
        and value.is_contiguous()
    )
