"""The tables that ``fairseq-vat evaluate`` prints."""

from __future__ import annotations

from typing import Any

from fairseq_vat.cli.tables import prose, table

_PIECES = {
    "none": "the dictionary's entries",
    "sentencepiece": "white space between joined sentencepiece pieces",
    "gpt2": "white space between joined byte-level pieces",
    "subword_nmt": "white space between joined subword-nmt pieces",
    "wordpiece": "white space between joined WordPiece pieces, punctuation marks being words",
}
_LIKELIHOODS = (
    ("measure", "", ""),
    ("per_sentence", "nats/sentence", ".3f"),
    ("per_word", "nats/word", ".3f"),
    ("per_token", "nats/token", ".3f"),
    ("bits_per_token", "bits/token", ".3f"),
    ("ppl_per_word", "ppl/word", ",.2f"),
    ("ppl_per_token", "ppl/token", ",.2f"),
)
_LATENTS = (("measure", "latents", ""), ("figures", "", ""))


def evaluation_tables(found: dict[str, Any], style: str) -> str:
    """The figures for a reader, tables in one of `tables.FORMATS`."""
    parts = [
        *prose(style, "\n".join(_heading(found))),
        table(_likelihoods(found), _LIKELIHOODS, style),
        table(_latents(found), _LATENTS, style),
    ]
    if found["warning"]:
        parts += prose(style, f"warning: {found['warning']}")
    return "\n\n".join(filter(None, parts))


def _heading(found: dict[str, Any]) -> list[str]:
    level = found["latent_level"]
    latents = "a language model, no latents"
    if level is not None:
        width = found["active_units"]["of"]
        latents = f"a latent of width {width} for each {level}, prior std {found['prior_std']:g}"
        if found["latent_noise"] == "prior":
            latents += f", noise std {found['noise_std']:g}"
    return [
        f"{found['checkpoint']}: {found['updates']:,} updates, {latents}",
        f"{found['data']}, {found['subset']}: {found['sentences']:,} sentences, "
        f"{found['words']:,} words ({_PIECES[found['pieces']]}), {found['tokens']:,} tokens"
        + (f", {found['cut']:,} sentences cut to the model's positions" if found["cut"] else "")
        + (f", {found['blank']:,} blank lines left out" if found["blank"] else ""),
    ]


def _likelihoods(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What doesn't apply has no row."""
    draws = "" if found["samples"] is None else f" ({found['samples']} a sentence)"
    k = f" (K = {found['iw_samples']})" if found["iw_samples"] else ""
    labels = {
        "nll": "nll, exact (a language model's)",
        "nll_mean": "nll from the mean",
        "nll_samples": f"nll from samples{draws}",
        "nll_prior": f"nll from the prior{draws}",
        "kl": "KL",
        "neg_elbo": "negative ELBO (samples + KL)",
        "iw_nll": f"nll, importance-weighted{k}",
        "penalty": "penalty in training (no KL)",
    }
    return [
        {"measure": label, **{name: _large(name, x) for name, x in found[key].items()}}
        for key, label in labels.items()
        if found[key]
    ]


def _large(name: str, x: float | None) -> float | str:
    """A perplexity may have no end of digits, or be beyond double precision."""
    if x is None:
        return "inf"
    return f"{x:.2e}" if name.startswith("ppl") and x >= 1e6 else x


def _latents(found: dict[str, Any]) -> list[dict[str, str]]:
    if found["latents"] is None:
        return []
    penalty, ess, bleu = (found[key] for key in ("penalty_nats", "ess", "reconstruction"))
    batches, whole, gain = (found[key] for key in ("mi_batches", "mi", "latent_gain"))
    plain, scaled = found["active_units"], found["active_units_scaled"]
    rows = {
        "KL per latent": f"{found['kl_nats']:.3f} nats, of {found['latents']:,} latents, one for "
        f"each {found['latent_level']}"
        + ("" if penalty is None else f"; penalty in training {penalty:.3f}"),
        "effective sample size": ess
        and f"of K = {found['iw_samples']}: mean {ess['mean']:.2f}, median {ess['median']:.2f}, "
        f"5th percentile {ess['percentile_5']:.2f}, least {ess['min']:.2f}"
        + " (one draw has all the weight: the bound is loose)"
        * (ess["median"] < 2 < found["iw_samples"]),
        "MI in batches": f"{_mi(batches)}, batches of {batches['batch_sentences']} sentences: "
        f"{batches['batches']:,}",
        "MI in the whole set": f"{_mi(whole)}, {whole['latents']:,} latents"
        + " chosen by chance" * (whole["latents"] < found["latents"]),
        "KL(q(z), prior)": f"{found['marginal_kl']:.3f} nats (KL per latent - MI of the whole "
        f"set); KL is least at prior std {found['least_kl_prior_std']:.3f}",
        "active units": f"{plain['count']} of {plain['of']} (variance of the mean at least "
        f"{plain['threshold']:g}); {scaled['count']} (at least 0.01 p^2 = "
        f"{scaled['threshold']:g})",
        "gain of own latents": f"{gain['bits_per_token']:.3f} bits per token (nll from the prior - "
        "nll from samples)" + ("" if gain["share"] is None else f", {gain['share']:.1%} of it"),
        "reconstruction": bleu
        and f"BLEU {bleu['bleu']:.2f}, {bleu['exact_match']:.1%} equal; beam {bleu['beam']}, "
        f"{bleu['sentences']:,} sentences ({bleu['signature']})",
    }
    return [{"measure": label, "figures": text} for label, text in rows.items() if text]


def _mi(found: dict[str, Any]) -> str:
    paired, unpaired = (
        f"{found[name]:.3f}" + ("" if found["draws"] == 1 else f" ± {found[f'{name}_std']:.3f}")
        for name in ("paired", "unpaired")
    )
    draws = "1 draw" if found["draws"] == 1 else f"{found['draws']} draws"
    return f"{paired} nats (unpaired {unpaired}; {draws}), ceiling {found['ceiling']:.3f}"
