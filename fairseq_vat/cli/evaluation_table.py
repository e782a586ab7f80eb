"""The table that ``fairseq-vat evaluate`` prints."""

from __future__ import annotations

from typing import Any

_PIECES = {
    "none": "the dictionary's entries",
    "sentencepiece": "white space between joined sentencepiece pieces",
    "gpt2": "white space between joined byte-level pieces",
    "subword_nmt": "white space between joined subword-nmt pieces",
}


def table(found: dict[str, Any]) -> list[str]:
    """The figures for a reader."""
    level = found["latent_level"]
    latents = "a language model, no latents"
    if level is not None:
        width = found["active_units"]["of"]
        latents = f"a latent of width {width} for each {level}, prior std {found['prior_std']:g}"
        if found["latent_noise"] == "prior":
            latents += f", noise std {found['noise_std']:g}"
    lines = [
        f"{found['checkpoint']}: {found['updates']:,} updates, {latents}",
        f"{found['data']}, {found['subset']}: {found['sentences']:,} sentences, "
        f"{found['words']:,} words ({_PIECES[found['pieces']]}), {found['tokens']:,} tokens"
        + (f", {found['cut']:,} sentences cut to the model's positions" if found["cut"] else "")
        + (f", {found['blank']:,} blank lines left out" if found["blank"] else ""),
        "",
        f"{'':36}{'nats per':>10}{'nats per':>10}{'nats per':>10}{'bits per':>10}"
        f"{'perplexity':>14}{'perplexity':>12}",
        f"{'':36}{'sentence':>10}{'word':>10}{'token':>10}{'token':>10}"
        f"{'per word':>14}{'per token':>12}",
    ]
    draws = "" if level is None else f" ({found['samples']} a sentence)"
    k = f" (K = {found['iw_samples']})" if found["iw_samples"] else ""
    rows = {
        "nll, exact (a language model's)": "nll",
        "nll from the mean": "nll_mean",
        f"nll from samples{draws}": "nll_samples",
        f"nll from the prior{draws}": "nll_prior",
        "KL": "kl",
        "negative ELBO (samples + KL)": "neg_elbo",
        f"nll, importance-weighted{k}": "iw_nll",
    }
    if found["penalty"] is not None:
        rows["penalty in training (no KL)"] = "penalty"
    lines += [f"{label:<36}{_spread(found[key])}" for label, key in rows.items()]
    lines += ["", *_latent_lines(found)]
    if found["warning"]:
        lines += ["", f"warning: {found['warning']}"]
    return lines


def _spread(spread: dict[str, float | None] | None) -> str:
    if spread is None:
        return "".join(f"{'-':>{width}}" for width in (10, 10, 10, 10, 14, 12))
    nats = "".join(
        f"{spread[name]:>10.3f}"
        for name in ("per_sentence", "per_word", "per_token", "bits_per_token")
    )
    words, tokens = (
        _large(spread[name]) if name in spread else "-"
        for name in ("ppl_per_word", "ppl_per_token")
    )
    return f"{nats}{words:>14}{tokens:>12}"


def _large(x: float | None) -> str:
    if x is None:
        return "inf"
    return f"{x:,.2f}" if x < 1e6 else f"{x:.2e}"


def _latent_lines(found: dict[str, Any]) -> list[str]:
    kl, ess, batches, whole = (found[key] for key in ("kl_nats", "ess", "mi_batches", "mi"))
    gain = found["latent_gain"]
    level, bleu = found["latent_level"], found["reconstruction"]
    lines = {
        "KL per latent": "-",
        "effective sample size": "-",
        "MI in batches": "-",
        "MI in the whole set": "-",
        "KL(q(z), prior)": "-",
        "active units": "-",
        "gain of own latents": "-",
        "reconstruction": "-",
    }
    keys = list(lines)
    if kl is not None:
        lines[keys[0]] = f"{kl:.3f} nats, of {found['latents']:,} latents, one for each {level}"
        lines[keys[2]] = (
            f"{_mi(batches)}, batches of {batches['batch_sentences']} sentences: "
            f"{batches['batches']:,}"
        )
        if found["penalty_nats"] is not None:
            lines[keys[0]] += f"; penalty in training {found['penalty_nats']:.3f}"
        chosen = " chosen by chance" if whole["latents"] < found["latents"] else ""
        lines[keys[3]] = f"{_mi(whole)}, {whole['latents']:,} latents{chosen}"
        lines[keys[4]] = f"{found['marginal_kl']:.3f} nats (KL per latent - MI of the whole set)"
        lines[keys[4]] += f"; KL is least at prior std {found['least_kl_prior_std']:.3f}"
        plain, scaled = found["active_units"], found["active_units_scaled"]
        lines[keys[5]] = (
            f"{plain['count']} of {plain['of']} (variance of the mean at least "
            f"{plain['threshold']:g}); {scaled['count']} (at least 0.01 p^2 = "
            f"{scaled['threshold']:g})"
        )
        share = "" if gain["share"] is None else f", {gain['share']:.1%} of it"
        lines[keys[6]] = (
            f"{gain['bits_per_token']:.3f} bits per token (nll from the prior - nll from samples)"
            f"{share}"
        )
    if ess is not None:
        lines[keys[1]] = (
            f"of K = {found['iw_samples']}: mean {ess['mean']:.2f}, median {ess['median']:.2f}, "
            f"5th percentile {ess['percentile_5']:.2f}, least {ess['min']:.2f}"
        )
        if ess["median"] < 2 < found["iw_samples"]:
            lines[keys[1]] += " (one draw has all the weight: the bound is loose)"
    if bleu is not None:
        lines[keys[7]] = (
            f"BLEU {bleu['bleu']:.2f}, {bleu['exact_match']:.1%} equal; beam {bleu['beam']}, "
            f"{bleu['sentences']:,} sentences ({bleu['signature']})"
        )
    return [f"{label:<24}{text}" for label, text in lines.items()]


def _mi(found: dict[str, Any]) -> str:
    paired, unpaired = (
        f"{found[name]:.3f}" + ("" if found["draws"] == 1 else f" ± {found[f'{name}_std']:.3f}")
        for name in ("paired", "unpaired")
    )
    draws = "1 draw" if found["draws"] == 1 else f"{found['draws']} draws"
    return f"{paired} nats (unpaired {unpaired}; {draws}), ceiling {found['ceiling']:.3f}"
