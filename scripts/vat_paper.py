"""The VAT paper's figures: tables 4 and 5."""

from __future__ import annotations

SETS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb")
CLASSIFICATION = ("mr", "cr", "sst2", "sst5", "trec", "mrpc", "sicke")

# Spearman x 100, for each of SETS; BERT-mean is quoted there from Reimers and Gurevych (2019)
TABLE_4 = """
VAT-start 17.45 12.10 14.74 20.09 31.14 30.70
VAT-mean 45.60 45.43 52.07 55.45 58.13 50.83
VAT-sum 45.60 45.43 52.07 55.45 58.13 51.56
MiniBERT-start -2.19 0.87 1.27 0.81 -3.46 -2.41
MiniBERT-mean -1.14 -3.83 1.63 0.21 7.25 -5.3
MiniBERT-sum -0.50 -1.54 0.60 -0.72 0.11 1.21
BERT-mean 38.78 57.98 57.98 63.15 61.06 46.35
"""
# accuracy in percent on dev/test, for each of CLASSIFICATION
TABLE_5 = {
    "features": """
MiniBERT-start 50.8/50.1 63.9/63.8 51.2/49.9 27.7/24.6 23.7/18.2 67.8/66.5 56.4/56.7
MiniBERT-mean 50.9/50.1 61.6/60.9 53.0/50.3 24.4/25.1 22.9/18.2 65.5/65.9 55.6/55.9
MiniBERT-sum 51.9/49.6 62.2/59.7 51.4/51.5 25.8/23.0 23.0/20.8 64.8/57.6 48.4/49.7
VAT-start 60.5/59.6 63.8/63.8 61.6/63.3 29.4/29.3 35.1/40.4 67.5/66.5 56.4/56.7
VAT-mean 61.0/60.2 63.9/63.8 61.4/60.7 30.4/31.0 44.1/48.6 67.5/66.6 59.2/58.5
VAT-sum 61.2/60.5 66.8/65.7 61.0/62.6 31.5/32.2 46.8/54.8 69.6/68.5 67.8/66.6
""",
    "finetune": """
MiniBERT-start 72.8/72.1 64.4/61.9 80.6/83.2 36.7/36.1 32.1/38.8 68.9/66.5 56.4/56.7
MiniBERT-mean 76.0/75.6 73.4/65.6 81.0/83.3 38.0/37.9 72.4/73.2 71.8/68.6 58.2/58.1
MiniBERT-sum 73.8/70.7 75.4/67.6 70.0/81.6 35.8/32.8 70.8/69.6 68.9/63.0 57.6/44.3
VAT-start 74.5/74.6 76.3/72.5 82.7/82.6 37.8/38.6 82.7/87.2 70.0/69.9 61.6/61.3
VAT-mean 73.8/74.1 75.0/72.5 81.7/82.4 39.9/40.0 84.1/85.2 68.9/63.7 64.2/61.8
VAT-sum 72.9/73.2 78.6/74.5 82.6/83.3 40.7/39.9 84.7/88.2 69.7/68.3 62.0/60.8
""",
}


def table_4() -> dict[str, dict[str, float]]:
    """The paper's correlations by system and data set."""
    return {
        name: dict(zip(SETS, map(float, figures), strict=True))
        for name, *figures in map(str.split, TABLE_4.split("\n")[1:-1])
    }


def table_5(mode: str) -> dict[str, dict[str, str]]:
    """The paper's accuracies, dev / test, by system and data set.

    Args:
        mode: ``features`` or ``finetune``.
    """
    return {
        name: dict(zip(CLASSIFICATION, (f.replace("/", " / ") for f in figures), strict=True))
        for name, *figures in map(str.split, TABLE_5[mode].split("\n")[1:-1])
    }
