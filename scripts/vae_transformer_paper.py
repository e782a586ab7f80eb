"""The VAE-Transformer paper's figures."""

from __future__ import annotations

SETS = ("ptb", "wikitext2", "sst2", "air")
LABELLED = ("sst2", "air")
SPLITS = ("train", "valid", "test")
NAMES = {
    "vae_transformer": "VAE-Transformer",
    "transformer_decoder_lm": "Transformer decoder",
    "vae_lstm": "VAE-LSTM",
    "lstm_decoder_lm": "LSTM",
    "vae_gru": "VAE-GRU",
    "gru_decoder_lm": "GRU",
    "vae_gpt2": "VAE-GPT",
}
RUNS = tuple(
    f"{system}-{annealing}"
    for system in NAMES
    for annealing in (
        ("lm",) if system.endswith("_lm") else ("cyclic", "linear", "none", "free-bits")
    )
)
# perplexity, KL, mutual information for each of SETS; a language model's perplexities
TABLE_2 = """
vae_transformer-cyclic 75.65 4.40 2.45 121.71 4.27 1.96 411.40 0.21 0.11 83.70 0.70 0.62
vae_transformer-linear 82.01 2.50 1.54 120.16 5.29 2.26 408.62 0.18 0.08 85.92 0.01 0.01
vae_transformer-none 91.52 0.00 0.00 128.25 0.16 0.09 413.77 0.06 0.02 88.65 0.00 0.00
transformer_decoder_lm-lm 118.69 170.42 456.60 100.90
vae_lstm-cyclic 88.64 0.90 0.81 133.81 0.55 0.38 659.85 0.00 0.00 142.72 0.01 0.01
vae_lstm-linear 92.08 0.01 0.01 134.61 0.01 0.01 629.05 0.00 0.00 137.53 0.00 0.00
vae_lstm-none 92.04 0.00 0.00 132.23 0.03 0.02 656.12 0.00 0.00 147.00 0.00 0.00
lstm_decoder_lm-lm 102.44 151.86 646.63 152.25
vae_gpt2-cyclic 54.23 0.01 0.00 79.10 0.02 0.01 358.90 1.57 0.74 83.44 0.86 0.52
"""
# table 4 and, for the GRU, table 5
TABLE_5 = """
vae_transformer-cyclic 75.17 4.78 2.58 125.78 3.67 1.73 301.83 1.02 0.90 71.40 2.64 2.14
vae_transformer-linear 81.49 2.70 1.65 122.17 5.48 2.33 312.05 0.01 0.01 77.95 0.33 0.30
vae_transformer-none 92.23 0.00 0.00 128.46 1.28 0.68 321.14 0.01 0.00 80.23 0.00 0.00
transformer_decoder_lm-lm 96.79 160.97 358.63 79.08
vae_lstm-cyclic 88.31 0.91 0.82 131.67 1.38 0.82 504.19 0.00 0.00 118.02 0.03 0.03
vae_lstm-linear 90.81 0.01 0.00 136.60 0.00 0.00 503.56 0.00 0.00 115.16 0.00 0.00
vae_lstm-none 92.79 0.00 0.00 134.02 0.00 0.00 547.01 0.00 0.00 121.89 0.00 0.00
lstm_decoder_lm-lm 93.30 141.90 486.67 123.43
vae_gru-cyclic 69.88 5.99 2.94 110.96 9.34 2.88 381.45 0.09 0.08 99.00 0.29 0.24
vae_gru-linear 76.33 3.57 2.07 110.15 9.08 2.87 394.33 0.00 0.00 102.11 0.03 0.02
vae_gru-none 86.74 0.70 0.46 123.66 0.68 0.23 376.84 0.00 0.00 95.96 0.00 0.00
gru_decoder_lm-lm 89.92 123.56 376.72 96.60
"""
# cross-entropy and accuracy on train, valid and test, for each of LABELLED; table 3, and 6 for GRU
TABLE_6 = """
vae_transformer-cyclic 0.630 0.689 0.641 0.661 0.618 0.700 0.492 0.793 0.459 0.797 0.483 0.800
vae_lstm-cyclic 0.638 0.682 0.649 0.652 0.631 0.694 0.547 0.794 0.543 0.800 0.542 0.801
vae_gru-cyclic 0.630 0.689 0.643 0.661 0.619 0.700 0.535 0.794 0.528 0.800 0.590 0.801
vae_gpt2-cyclic 0.634 0.670 0.650 0.646 0.633 0.677 0.522 0.787 0.517 0.789 0.525 0.798
"""
# seconds: ptb at width 128 and 1024, wikitext2 at both
TABLE_7 = """
vae_transformer 14.51 85.84 23.12 142.48
vae_lstm 12.64 137.36 19.05 227.65
vae_gru 11.29 109.78 16.44 182.79
transformer_decoder_lm 11.39 63.09 19.84 106.70
lstm_decoder_lm 9.89 74.37 15.14 119.79
gru_decoder_lm 9.44 60.44 14.81 104.28
"""
# parameters at width 128 and 1024
TABLE_8 = """
vae_transformer 12763706 118395834
vae_lstm 12756922 87515578
vae_gru 12526010 75575738
transformer_decoder_lm 8272186 71461690
lstm_decoder_lm 8108346 48315450
gru_decoder_lm 8042298 45034554
"""
NEAR_ZERO = 0.1  # nats of KL and of mutual information; the paper prints up to 0.09 for "almost"


def paper(figures_of: str, row: str, place: int, width: int) -> list[float | None]:
    """`width` figures of a row, those of the data set or model width number `place`."""
    rows = {name: figures for name, *figures in map(str.split, figures_of.strip().splitlines())}
    chosen = rows.get(row, [])[place * width : (place + 1) * width] if place >= 0 else []
    return [float(figure) for figure in chosen] or [None] * width
