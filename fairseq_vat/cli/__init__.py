"""The ``fairseq-vat`` command: one module a subcommand, each with ``add_parser`` and ``run``."""
