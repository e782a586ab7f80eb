"""A real browser without a window, for what only one can tell: whether a page fits its screen."""

from __future__ import annotations

import html
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)


def find() -> str:
    """The browser's path; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: install one of {', '.join(_NAMES)} (apt-get install chromium)")
    return found


def dump_dom(page: Path, profile: Path, *flags: str) -> str:
    """The page's document as it stands once its scripts have run, as HTML.

    Args:
        page: a file.
        profile: a folder for the browser's own use, which needn't exist.
        *flags: more of the browser's.
    """
    command = [find(), *_FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", page.as_uri()]
    # its own environment: a browser started by root in a test has no session to talk to
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def in_frame(page: str, width: int, script: str) -> str:
    """A page that shows another in a frame of some width and then runs a script on it.

    A browser's window can't be made as narrow as a phone; a frame in it can, and lays its page
    out for its own width.

    Args:
        page: HTML; the policy that keeps scripts out of it doesn't reach the frame's parent.
        width: in CSS pixels.
        script: sees the frame's ``window`` and ``document`` as ``view`` and ``page``; what it
            returns is put into the element ``found`` as JSON.
    """
    return f"""<!DOCTYPE html><body><iframe id="frame" style="border:0;width:{width}px;height:800px"
srcdoc="{html.escape(page)}"></iframe><pre id="found"></pre><script>
document.getElementById("frame").onload = event => {{
  const view = event.target.contentWindow, page = event.target.contentDocument;
  document.getElementById("found").textContent = JSON.stringify((() => {{ {script} }})());
}};</script></body>"""
