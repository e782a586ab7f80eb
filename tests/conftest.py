"""Fixtures are in helpers/fixtures.py, which xdist's controller, running no test, doesn't load."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Their module loads torch and fairseq."""
    is_worker = hasattr(config, "workerinput")
    if is_worker or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("helpers.fixtures")
