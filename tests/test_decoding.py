"""Decoding, a step at a time, of every decoder."""

from __future__ import annotations

from typing import Any

import torch
from helpers.models import batch
from helpers.systems import EOS, LANGUAGE_MODELS, SYSTEMS, UNK, each

_NAMES = ("transformer-transformer-sentence", "gru-transformer-token")
_NAMES += ("lstm-lstm-sentence", "gru-gru-sentence")
DECODERS = {name: SYSTEMS[name] for name in _NAMES} | LANGUAGE_MODELS


@each(DECODERS)
@torch.no_grad()
def test_decoding_by_steps_is_decoding_at_once(make_system, flags):
    """Also when a beam's hypotheses change places, and when a sentence is done."""
    task, model, _ = make_system(flags)
    tokens = batch(task, [0, 1])["net_input"]["src_tokens"]
    beam = torch.tensor([0, 0, 1, 1])
    out = None
    if model.has_latents:
        out = model.encoder.reorder_encoder_out(model.encoder(tokens), beam)
    torch.manual_seed(1)
    prefix = torch.full((4, 1), EOS)
    state: dict[str, Any] = {}
    orders = {5: torch.tensor([1, 0, 3, 3]), 9: torch.tensor([3, 2])}
    for length in range(1, 13):
        if length in orders:
            model.decoder.reorder_incremental_state_scripting(state, orders[length])
            prefix = prefix[orders[length]]
            if out is not None:
                out = model.encoder.reorder_encoder_out(out, orders[length])
        step = model.decoder(prefix, encoder_out=out, incremental_state=state)[0]
        at_once = model.decoder(prefix, encoder_out=out)[0]
        assert step.size(1) == 1
        torch.testing.assert_close(step[:, -1], at_once[:, -1], rtol=1e-4, atol=1e-5)
        prefix = torch.cat((prefix, torch.randint(UNK + 1, 40, (len(prefix), 1))), dim=1)


class _Beam:
    """As much of fairseq's generation configuration as a generator needs."""

    beam, nbest, min_len, max_len_b, temperature = 3, 3, 6, 12, 1.0


@each(DECODERS)
@torch.no_grad()
def test_beam_search_reads_one_token_a_step_and_scores_rightly(make_system, flags):
    task, model, _ = make_system(flags)
    sample = batch(task, [0, 1, 2, 3])
    net_input = sample["net_input"]
    generator = task.build_generator([model], _Beam())
    read: list[int] = []
    watched = [model.decoder.embed_tokens.register_forward_pre_hook(_note(read, dimension=1))]
    if hasattr(model.decoder, "rnn"):
        watched.append(model.decoder.rnn.register_forward_pre_hook(_note(read, dimension=0)))
    found = task.inference_step(generator, [model], sample)
    for handle in watched:
        handle.remove()
    assert len(read) > 5 and set(read) == {1}
    out = model.encoder(net_input["src_tokens"]) if model.has_latents else None
    for row, hypotheses in enumerate(found):
        one = out and model.encoder.reorder_encoder_out(out, torch.tensor([row]))
        for hypothesis in hypotheses:
            tokens = hypothesis["tokens"]
            prev = torch.cat((tokens.new_tensor([EOS]), tokens[:-1])).unsqueeze(0)
            log_probs = torch.log_softmax(model.decoder(prev, encoder_out=one)[0][0], dim=-1)
            expected = log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
            torch.testing.assert_close(
                hypothesis["positional_scores"], expected, rtol=1e-4, atol=1e-4
            )


def _note(read: list[int], dimension: int) -> Any:
    return lambda module, args: read.append(args[0].size(dimension))
