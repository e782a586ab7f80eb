"""A checkpoint as a module of sentence-transformers, and so as MTEB's sentence encoder.

    from sentence_transformers import SentenceTransformer
    from fairseq_vat.hub.sentence_transformers import VATEncoder

    encoder = SentenceTransformer(modules=[VATEncoder("checkpoints", pooling="mean")])

Shape legend: B sentences of a batch, T source positions, P latents of a sentence (its source
positions at token level, 1 at sentence level), L latent width.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fairseq import checkpoint_utils
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import checkpoint_of, load_model
from fairseq_vat.hub.packing import write_packed
from fairseq_vat.latent.gaussian import pool
from fairseq_vat.text.cutting import cut
from fairseq_vat.text.pieces import check_subwords

try:
    from sentence_transformers.models import InputModule
except ImportError as error:
    raise VATError(
        "sentence-transformers is missing: pip install 'fairseq_vat[sentence-transformers]'"
    ) from error
except OSError as error:  # which torchaudio raises, and transformers imports where it is there
    raise VATError(
        f"sentence-transformers can't be imported ({error}): a torchaudio of another build than "
        "torch's? Nothing here needs it: pip uninstall torchaudio"
    ) from error


class VATEncoder(InputModule):
    """The means of a checkpoint's latents, and their pooling, as sentence-transformers' features.

    ``sentence_embedding`` (B, L) is what `VATHubInterface.embed` gives, with gradients;
    ``token_embeddings`` (B, P, L) are the latents' means, for a pooling of sentence-transformers'.

    Args:
        model_name_or_path: a checkpoint that needs nothing beside it, or the folder of one.
        pooling: ``mean``, ``sum`` or ``start``, as for `VATHubInterface.embed`.
        max_seq_length: of the attribute; None: the model's positions.

    Raises:
        VATError: as `load_model`, for a language model, for a pooling that the model hasn't, and
            for a length beyond its positions.
    """

    config_file_name = "vat_encoder_config.json"
    config_keys = ["pooling", "max_seq_length"]
    save_in_root = True

    def __init__(
        self,
        model_name_or_path: str | os.PathLike,
        pooling: str = "mean",
        max_seq_length: int | None = None,
    ):
        super().__init__()
        path = checkpoint_of(model_name_or_path)
        self.vat = VATHubInterface.of(load_model(path, device="cpu"))
        self.vat.embed([], pooling)  # raises for one that the model hasn't
        self.pooling = pooling
        self._room = self.vat.task.room
        if max_seq_length is not None:
            self.max_seq_length = max_seq_length
        # what a saved model has beside its parameters
        self._state = {
            name: value
            for name, value in checkpoint_utils.load_checkpoint_to_cpu(path).items()
            if name not in ("model", "last_optimizer_state")
        }

    @property
    def max_seq_length(self) -> int:
        """Subwords of the longest sentence that isn't cut, start token and end included."""
        return self._room + int(self.vat.task.start_token)

    @max_seq_length.setter
    def max_seq_length(self, length: int) -> None:
        start, longest = int(self.vat.task.start_token), self.vat.task.room
        if not 1 < length - start <= longest:
            raise VATError(
                f"max_seq_length {length}: must be from {start + 2} to {start + longest}, the "
                "model's positions"
            )
        self._room = length - start

    def get_embedding_dimension(self) -> int:
        """L."""
        return self.vat.model.encoder.latent_dim

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Sentences as ``input_ids`` and ``attention_mask``, (B, T), padded at the right.

        Longer ones than `max_seq_length` are cut. A prompt is text before each.

        Raises:
            VATError: for text that isn't in the model's subwords.
        """
        task = self.vat.task
        lines = [self.vat.apply_bpe((prompt or "") + text) for text in inputs]
        check_subwords(lines, task.source_dictionary)
        tokens = [cut(self.vat.binarize(line), self._room) for line in lines]
        dataset = task.build_dataset_for_inference(tokens, [len(sentence) for sentence in tokens])
        sources = [dataset[number]["source"] for number in range(len(tokens))]
        pad = task.source_dictionary.pad()
        tokens_BT = pad_sequence(sources, batch_first=True, padding_value=pad)
        return {"input_ids": tokens_BT, "attention_mask": tokens_BT.ne(pad).long()}

    # the names that version 5 has for the two
    get_sentence_embedding_dimension = get_embedding_dimension

    def tokenize(self, texts: Sequence[str], **kwargs: Any) -> dict[str, Tensor]:
        return self.preprocess(texts, **kwargs)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add ``token_embeddings`` and ``sentence_embedding`` to what `preprocess` gave.

        ``attention_mask`` becomes (B, P).
        """
        encoder = self.vat.model.encoder
        out = encoder(features["input_ids"], features["attention_mask"].sum(dim=1))
        posterior, padding_BP = encoder.posterior(out), out["encoder_padding_mask"][0]
        return {
            **features,
            "attention_mask": (~padding_BP).long(),
            "token_embeddings": posterior.mean.transpose(0, 1),
            "sentence_embedding": pool(posterior, padding_BP, self.pooling).mean,
        }

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the folder of `fairseq_vat.hub.packing.pack`, in full precision.

        ``fairseq-vat`` and ``VATModel.from_pretrained`` open it too. Its ``model.pt`` is read with
        ``weights_only=True``; ``safe_serialization`` makes no difference.
        """
        write_packed(self._state, self.vat.model, output_path, half=False)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> VATEncoder:
        """A saved module of a local folder, with its pooling."""
        config = cls.load_config(model_name_or_path, subfolder=subfolder, local_files_only=True)
        return cls(os.path.join(model_name_or_path, subfolder), **config)
