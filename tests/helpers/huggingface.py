"""A tiny BERT in a folder, with a tokenizer that takes words apart at white space."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fairseq_vat.compat.packages import import_transformers

POSITIONS = 16


def save_bert(folder: Path, words: list[str]) -> None:
    """Random weights, the same ones every time."""
    transformers = import_transformers("test")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=POSITIONS,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stderr(io.StringIO()):
        torch.manual_seed(1)
        transformers.BertModel(config).save_pretrained(folder)
