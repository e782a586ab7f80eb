"""What a checkpoint is, in words: its architecture, latents, prior and training."""

from __future__ import annotations

from typing import Any

from fairseq_vat.hub.interface import VATHubInterface


def facts(vat: VATHubInterface, prior_std: float) -> dict[str, str]:
    """Names and texts for the report's first table, in its order."""
    model, level = vat.model, str(vat.model.encoder.latent_level)
    width = model.encoder.latent_dim
    dictionary = vat.task.target_dictionary
    return {
        "Architecture": f"{vat.cfg.model._name}: {_parts(model.cfg)}",
        "Updates": f"{model.num_updates:,}",
        "Parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "Latents": f"one for each {level}, {width:,} dimensions",
        "Prior of the latents": f"N(0, p\u00b2 I), p = {prior_std:g}",
        "Noise of the latents": f"{model.cfg.latent_noise}, of standard deviation "
        f"{model.encoder.noise_std:g}",
        "KL in the loss": _kl(vat.cfg.criterion, model.num_updates),
        "Dictionary": f"{len(dictionary):,} entries",
        "Data": str(vat.task.cfg.data),
    }


def _parts(cfg: Any) -> str:
    """Such as ``Transformer encoder, 4 layers, 128 wide; ...``."""
    names = {"transformer": "Transformer", "lstm": "LSTM", "gru": "GRU", "gpt2": "GPT-2"}
    texts = []
    for side in ("encoder", "decoder"):
        kind = getattr(cfg, f"{side}_type")
        text = f"{names[kind]} {side}"
        if kind != "gpt2":
            own = getattr(cfg, side)
            recurrent = kind in ("lstm", "gru")
            wide = getattr(cfg, f"{side}_hidden_size") if recurrent else own.embed_dim
            text += f", {own.layers} layer{'s' if own.layers != 1 else ''}, {wide:,} wide"
        texts.append(text)
    return "; ".join(texts)


def _kl(criterion: Any, updates: int) -> str:
    """The weight, its annealing and what bounds it, in one line."""
    if getattr(criterion, "kl_weight", None) is None:
        return f"criterion {getattr(criterion, '_name', 'unknown')}, not this plugin's"
    parts = [f"weight {criterion.kl_weight:g}"]
    schedule = _name(criterion.kl_annealing)
    if schedule != "constant":
        parts[0] += f", {schedule} annealing over {criterion.kl_annealing_updates:,} updates"
        if schedule == "cyclic":
            parts[0] += f" in {criterion.kl_annealing_cycles} cycles"
    reduction = _name(criterion.kl_reduction)
    parts.append(f"{reduction} over dimensions")
    if criterion.free_bits:
        per = _name(criterion.free_bits_per)
        parts.append(f"{criterion.free_bits:g} nats free per {per}")
    return "; ".join(parts)


def _name(choice: Any) -> str:
    """The value of an enumeration's member; a checkpoint may have its name only."""
    return str(getattr(choice, "value", choice))
