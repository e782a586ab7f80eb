"""Reconstruct sentences: the task every variational architecture trains and generates on.

Shape legend: B sentences, T source positions.
"""

import argparse
import logging
from typing import Any

import torch
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset, PrependTokenDataset
from fairseq.data.encoders.gpt2_bpe import GPT2BPE
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.tasks import register_task
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.models.config import check_values
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.tasks import data_directory, generation
from fairseq_vat.tasks.aggressive import AggressiveTask
from fairseq_vat.tasks.config import VariationalLMConfig, latent_sampling
from fairseq_vat.tasks.selection import LatentSelection
from fairseq_vat.text.cutting import CutDataset, cut
from fairseq_vat.text.gpt2_vocabulary import check_encoding
from fairseq_vat.text.lines import clean_line
from fairseq_vat.text.pieces import check_subwords

logger = logging.getLogger(__name__)


@register_task("variational_lm", dataclass=VariationalLMConfig)
class VariationalLMTask(AggressiveTask):
    """Source = target, on data binarised by ``fairseq-preprocess --only-source``.

    A source sentence is ``<s> w1 ... wn </s>``, a target ``w1 ... wn </s>``.
    """

    def __init__(self, cfg: VariationalLMConfig, dictionary: Dictionary):
        super().__init__(cfg)
        self.latent_sampling = latent_sampling(cfg)
        self.latent_selection = LatentSelection(cfg.latent_positions, cfg.latent_marks)
        positions = ("max_source_positions", "max_target_positions")
        check_values(cfg, positions, lambda x: x >= 3, "at least 3")
        self.dictionary = dictionary
        self.start_token = cfg.start_token
        self._evaluating = False  # true once a model was built from a checkpoint
        self._max_positions = (cfg.max_source_positions, cfg.max_target_positions)
        self._nbest: int | None = None
        self._lines_read = 0
        self._vocabulary_state: dict[str, Any] = {}  # of a training, which keeps it in checkpoints
        # of a checkpoint: sentences of 0, 1, ... tokens
        self.training_lengths: Tensor | None = None
        self._tokenizer: Any = None
        self._bpe: Any = None

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """Flags; one that is true by default needs its --no- form, ahead of the generated."""
        parser.add_argument(
            "--start-token",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="head every source sentence with a start token (--no-start-token: don't)",
        )
        gen_parser_from_dataclass(parser, VariationalLMConfig())

    @classmethod
    def setup_task(cls, cfg: VariationalLMConfig, **kwargs: Any) -> "VariationalLMTask":
        """Load the dictionary of the (first) data directory, unless ``dictionary`` is given."""
        dictionary = kwargs.get("dictionary") or data_directory.load_dictionary(cfg.data)
        logger.info(f"dictionary: {len(dictionary):,} types")
        return cls(cfg, dictionary)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> Any:
        """Load a split; with several data directories, training goes through them by epoch."""
        if not self.cfg.data:
            raise VATError(f"no data directory was given to read {split} from")
        paths = utils.split_paths(self.cfg.data)
        is_train = split == self.cfg.train_subset
        path = paths[(epoch - 1) % len(paths)] if is_train else paths[0]
        sentences = data_directory.load_split(path, split, self.dictionary, combine)
        if self.cfg.truncate:
            too_long = int((sentences.sizes > self.room).sum())
            sentences = CutDataset(sentences, self.room)
            logger.info(
                f"--truncate: {split}: {too_long:,} of {len(sentences):,} sentences cut to their "
                f"first {self.room - 1:,} tokens"
            )
        source = sentences
        if self.start_token:
            source = PrependTokenDataset(source, self.dictionary.bos())
        self.latent_selection.check_data(source.sizes, self.start_token, f"{split}: sentence")
        self.datasets[split] = LanguagePairDataset(
            *(source, source.sizes, self.dictionary),
            *(sentences, sentences.sizes, self.dictionary),
            left_pad_source=False,
            left_pad_target=False,
        )
        if is_train:
            self._vocabulary_state = data_directory.vocabulary_state(
                self.dictionary, paths[0], sentences.sizes
            )
        logger.info(f"{path}: {split}, {len(sentences):,} sentences")

    def can_reuse_epoch_itr(self, dataset: Any) -> bool:
        """No: batches are made anew for every epoch.

        fairseq groups sentences with seed + epoch, but keeps a process's first grouping. A run
        resumed after its first epoch would go on with other batches than one never stopped.
        """
        return False

    def get_batch_iterator(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """fairseq's iterator; outside training it leaves no sentence out.

        fairseq drops the last batch, which holds the longest sentences, where its size isn't a
        multiple of ``--required-batch-size-multiple`` (8 by default).
        """
        if self._evaluating or dataset is not self.datasets.get(self.cfg.train_subset):
            kwargs["required_batch_size_multiple"] = 1
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def filter_indices_by_size(
        self,
        indices: Any,
        dataset: Any,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
    ) -> Any:
        """fairseq's filter; where it would stop at the first sentence, say what to do."""
        kept, too_long = dataset.filter_indices_by_size(indices, max_positions)
        if len(too_long) > 0 and not (ignore_invalid_inputs and len(kept)):
            raise VATError(
                f"{len(too_long):,} of {len(indices):,} sentences are longer than "
                f"{max_positions}, --max-tokens or the model's positions: give --truncate to cut "
                "them, or --skip-invalid-size-inputs-valid-test to leave them out"
            )
        return super().filter_indices_by_size(indices, dataset, max_positions, True)

    def build_dataset_for_inference(
        self, src_tokens: list[Tensor], src_lengths: list[int], constraints: Any = None
    ) -> LanguagePairDataset:
        """Sentences without targets, as `fairseq-interactive` needs them.

        A sentence longer than the model's positions is cut, whatever ``--truncate`` says, so that
        one long line doesn't end the process.
        """
        start = [self.dictionary.bos()] if self.start_token else []
        sources = []
        first = self._lines_read - len(src_tokens) + 1
        for number, tokens in enumerate(src_tokens, first):
            if len(tokens) > self.room:
                logger.warning(
                    f"line {number} has {len(tokens) - 1} tokens: cut to the first "
                    f"{self.room - 1}, the model's positions"
                )
            sources.append(torch.cat((tokens.new_tensor(start), cut(tokens, self.room))))
        lengths = [len(source) for source in sources]
        self.latent_selection.check_lengths(lengths, self.start_token, "line", first)
        marked = self.latent_selection.take_marked(lengths, self.start_token)
        if marked is not None and constraints is not None:
            raise VATError("--latent-marks can't be combined with --constraints")
        return LanguagePairDataset(
            sources,
            lengths,
            self.dictionary,
            tgt_dict=self.dictionary,
            left_pad_source=False,
            constraints=constraints if marked is None else marked,
        )

    def get_interactive_tokens_and_lengths(
        self, lines: list[str], encode_fn: Any
    ) -> tuple[list[Tensor], list[int]]:
        """Clean and encode lines; a line without a known word is encoded, and warned of."""
        lines = [clean_line(line) for line in lines]
        lines = self.latent_selection.read_lines(
            lines, self._lines_read + 1, encode_fn, self._decode_subwords
        )
        check_subwords([encode_fn(line) for line in [*filter(None, lines)][:1]], self.dictionary)
        tokens, lengths = super().get_interactive_tokens_and_lengths(lines, encode_fn)
        for number, sentence in enumerate(tokens, self._lines_read + 1):
            words = sentence[:-1]
            if len(words) and bool(words.eq(self.dictionary.unk()).all()):
                logger.warning(f"line {number} holds nothing but words unknown to the dictionary")
        self._lines_read += len(lines)
        return tokens, lengths

    def build_tokenizer(self, args: Any) -> Any:
        """fairseq's tokenizer, remembered to find marked words in subwords."""
        self._tokenizer = super().build_tokenizer(args)
        return self._tokenizer

    def build_bpe(self, args: Any) -> Any:
        """fairseq's encoder of subwords; what GPT-2's writes that breaks a line becomes spaces."""
        self._bpe = bpe = super().build_bpe(args)
        if isinstance(bpe, GPT2BPE):
            check_encoding("--gpt2-encoder-json", bpe.bpe.encoder, bpe.bpe.bpe_ranks)
            decode = bpe.decode
            bpe.decode = lambda pieces: clean_line(decode(pieces))
        return bpe

    def _decode_subwords(self, text: str) -> str:
        for part in (self._bpe, self._tokenizer):
            text = text if part is None else part.decode(text)
        return text

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a model; one from a checkpoint says how its sentences are to be read.

        In generation fairseq gives the task the command line's configuration, not the
        checkpoint's, so the model's own record of start token and positions is what counts.
        """
        model = super().build_model(cfg, from_checkpoint)
        # this object is what the trainer saves; the model was given a copy
        for name, value in model.configuration().items() if hasattr(model, "configuration") else ():
            setattr(cfg, name, value)
        if from_checkpoint:
            start_token = getattr(cfg, "start_token", self.start_token)
            if self._evaluating and start_token != self.start_token:
                raise VATError(
                    "--path: an ensemble can't mix models trained with and without a start token"
                )
            self.start_token, self._evaluating = start_token, True
            if isinstance(model.max_positions(), tuple):
                pairs = zip(self._max_positions, model.max_positions(), strict=True)
                self._max_positions = tuple(min(pair) for pair in pairs)
        return model

    def build_generator(
        self,
        models: list[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: dict[str, Any] | None = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """fairseq's generator, or with ``--latent-sampling`` one that draws latents first."""
        kwargs = dict(extra_gen_cls_kwargs or {})
        generation.check_generation(models, args, self.latent_sampling)
        have_latents = all(getattr(model, "has_latents", False) for model in models)
        args.print_step = have_latents and not getattr(args, "score_reference", False)  # "I-"
        if self.latent_sampling is not None:
            self.latent_selection.check_models(models)
            seq_gen_cls = generation.VariationalSequenceGenerator
            # remembered, since it is changed below and a generator can be built twice
            self._nbest = self._nbest or min(args.nbest, args.beam)
            kwargs.update(latent_sampling=self.latent_sampling, nbest=self._nbest)
            # generate and interactive print the first nbest hypotheses: all of every draw
            args.nbest = self._nbest * self.latent_sampling.samples
        elif seq_gen_cls is None and not getattr(args, "print_alignment", None):
            ours = all(isinstance(model, VATModel) for model in models)
            seq_gen_cls = generation.LatentSequenceGenerator if ours else None
        return super().build_generator(models, args, seq_gen_cls, kwargs, prefix_allowed_tokens_fn)

    def inference_step(
        self,
        generator: Any,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> list[list[dict[str, Tensor]]]:
        """Generate; an empty sentence is answered with an empty one, not with an invention."""
        sample, constraints = self.latent_selection.into_batch(
            sample, constraints, self.dictionary.pad(), self.start_token
        )
        hypotheses = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        if hasattr(generator, "beam_size"):  # else a scorer, which generates nothing
            tokens_BT = sample["net_input"]["src_tokens"]
            hypotheses = generation.answer_empty(hypotheses, tokens_BT, self.dictionary)
            hypotheses = generation.align_words(hypotheses, self.start_token)
        return hypotheses

    def state_dict(self) -> dict[str, Any]:
        """What goes into a checkpoint, which then needs no data directory."""
        return {"dictionary": data_directory.fingerprint(self.dictionary), **self._vocabulary_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint that was trained with another dictionary."""
        data_directory.check_dictionary(state_dict, self.dictionary, self.cfg.data)

    def max_positions(self) -> tuple[int, int]:
        return self._max_positions

    @property
    def room(self) -> int:
        """Tokens of the longest sentence that fits both sides, its end counted, its start not."""
        longest_source, longest_target = self._max_positions
        return min(longest_source - int(self.start_token), longest_target)

    @property
    def source_dictionary(self) -> Dictionary:
        return self.dictionary

    @property
    def target_dictionary(self) -> Dictionary:
        return self.dictionary
