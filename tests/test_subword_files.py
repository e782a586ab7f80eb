"""How text becomes tokens: in a folder, in a checkpoint, beside data of earlier versions."""

import hashlib
import json

import pytest
import torch

from fairseq_vat.errors import VATError
from fairseq_vat.text.subword_files import KINDS, SubwordFiles


@pytest.mark.parametrize("kind", [*KINDS, "words"])
def test_it_is_the_same_after_a_folder_and_after_a_checkpoint(kind, tmp_path):
    files = {setting: f"{setting}\0\xff".encode("latin-1") for setting in KINDS.get(kind, {})}
    subwords = SubwordFiles(kind, files)
    paths = subwords.write(tmp_path / "folder")
    assert set(paths) == set(files)
    assert SubwordFiles.read(tmp_path / "folder") == subwords
    torch.save(subwords.state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert SubwordFiles.from_state(state) == subwords


def test_nothing_is_guessed(tmp_path):
    assert SubwordFiles.read(tmp_path) is None
    data = tmp_path / "data-bin"
    data.mkdir()
    (tmp_path / "sentencepiece.model").write_bytes(b"a model")
    note = {"made_from": {"model_sha256": hashlib.sha256(b"a model").hexdigest()}}
    (data / "made_from.json").write_text(json.dumps(note))
    assert SubwordFiles.read(data).files == {"sentencepiece_model": b"a model"}
    (tmp_path / "sentencepiece.model").write_bytes(b"another")
    assert SubwordFiles.read(data) is None


@pytest.mark.parametrize(
    "note", ["[]", '{"bpe": []}', '{"bpe": "../x"}', '{"bpe": "gpt2"}', '{"bpe": null}']
)
def test_a_note_that_can_not_be_used(note, tmp_path):
    (tmp_path / "subwords.json").write_text(note)
    with pytest.raises(VATError, match=str(tmp_path)):
        SubwordFiles.read(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"bpe": "fastbpe", "files": {}},
        {"bpe": "sentencepiece", "files": {}},
        {"bpe": "words", "files": {"sentencepiece_model": torch.zeros(2, dtype=torch.uint8)}},
        {"bpe": "sentencepiece", "files": {"sentencepiece_model": torch.tensor([300])}},
        {"bpe": "sentencepiece", "files": {"sentencepiece_model": "/etc/passwd"}},
    ],
)
def test_a_state_that_is_something_else(state):
    with pytest.raises(VATError, match="subwords"):
        SubwordFiles.from_state(state)
