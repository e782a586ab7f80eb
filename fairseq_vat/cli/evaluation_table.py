"""The tables that ``fairseq-vat evaluate`` prints."""

from typing import Any

from fairseq_vat.cli.tables import MeanAndStd, prose, table
from fairseq_vat.evaluation.texts import bleu_of

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
    ("ppl_per_word", "ppl/word", ",.2f"),
    ("ppl_per_token", "ppl/token", ",.2f"),
)
_COUNTS = (("measure", "", ""), ("figure", "figure", ""), ("note", "", ""))


def evaluation_tables(found: dict[str, Any], style: str) -> str:
    """The figures for a reader, tables in one of `tables.FORMATS`."""
    draws = found["mi"]["draws"] if found["mi"] else 1
    over = f"± over {draws} draws" if draws > 1 else ""
    columns = (("measure", "latents", ""), ("nats", "nats", ".3f"), ("note", over, ""))
    parts = [
        *prose(style, "\n".join(_heading(found))),
        table(_likelihoods(found), _LIKELIHOODS, style),
        table(_latents(found), columns, style),
        table(_counts(found), _COUNTS, style),
    ]
    if found["reconstruction"]:
        parts += prose(style, f"sacrebleu: {found['reconstruction']['signature']}")
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
    count = found["samples"]
    draws = f", {count} draw{'s' if count > 1 else ''}" if count else ""
    labels = {
        "nll": "nll, exact",
        "nll_mean": "nll from the mean",
        "nll_samples": f"nll from samples{draws}",
        "nll_prior": f"nll from the prior{draws}",
        "kl": "KL",
        "neg_elbo": "negative ELBO (samples + KL)",
        "iw_nll": f"importance-weighted nll, K={found['iw_samples']}",
        "penalty": "penalty in training (no KL)",
    }
    return [
        {"measure": label, **{name: _large(name, x) for name, x in found[key].items()}}
        for key, label in labels.items()
        if found[key]
    ]


def _large(name: str, x: float | None) -> float | str:
    """As in a training's log; None is a perplexity beyond double precision."""
    return ">1e6" if x is None or (name.startswith("ppl") and x > 1e6) else x


def _latents(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures in nats, with what they are of."""
    if found["latents"] is None:
        return []
    batches, whole, gain = (found[key] for key in ("mi_batches", "mi", "latent_gain"))
    share = "" if gain["share"] is None else f", {gain['share']:.1%} of the nll from the prior"
    rows = {
        "KL per latent": (
            found["kl_nats"],
            f"{found['latents']:,} latents, one for each {found['latent_level']}",
        ),
        "penalty in training": (found["penalty_nats"], "per latent"),
        f"MI in batches of {batches['batch_sentences']}": (
            MeanAndStd.of(batches, "paired"),
            f"{_mi(batches)}; {batches['batches']:,} batches",
        ),
        "MI in the whole set": (
            MeanAndStd.of(whole, "paired"),
            f"{_mi(whole)}; {whole['latents']:,} "
            + ("by chance" if whole["latents"] < found["latents"] else "latents"),
        ),
        "KL(q(z), prior)": (found["marginal_kl"], "KL per latent - MI in the whole set"),
        "gain of own latents": (gain["per_token"], f"a token{share}"),
    }
    return [
        {"measure": name, "nats": nats, "note": note}
        for name, (nats, note) in rows.items()
        if nats is not None
    ]


def _counts(found: dict[str, Any]) -> list[dict[str, str]]:
    """Figures of latents and texts that have no unit."""
    if found["latents"] is None:
        return []
    plain, scaled = found["active_units"], found["active_units_scaled"]
    rows = [
        (
            "active units",
            f"{plain['count']} of {plain['of']}",
            f"variance of the mean at least {plain['threshold']:g}",
        ),
        (
            "active units, scaled",
            f"{scaled['count']} of {scaled['of']}",
            f"at least 0.01 p^2 = {scaled['threshold']:g}",
        ),
        ("prior std of least KL", f"{found['least_kl_prior_std']:.3f}", ""),
    ]
    ess, outputs = found["ess"], found["reconstruction"]
    if ess:
        loose = "; one draw has all the weight" * (ess["median"] < 2 < found["iw_samples"])
        rows.append(
            (
                "effective sample size",
                f"{ess['mean']:.2f}",
                f"of {found['iw_samples']}; median {ess['median']:.2f}, least {ess['min']:.2f}"
                + loose,
            )
        )
    if outputs:
        name, bleu = bleu_of(outputs)
        rows += [
            (name, f"{bleu:.2f}", f"beam {outputs['beam']}, {outputs['sentences']:,} sentences"),
            ("equal sentences", f"{outputs['exact_match']:.1%}", ""),
        ]
    return [dict(zip(("measure", "figure", "note"), row, strict=True)) for row in rows]


def _mi(found: dict[str, Any]) -> str:
    unpaired = MeanAndStd.of(found, "unpaired")
    return f"unpaired {unpaired:.3f}; ceiling {found['ceiling']:.3f}"
