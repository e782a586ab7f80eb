"""What several test files need; nothing is imported from a test file."""

import pytest

pytest.register_assert_rewrite("helpers")  # their assertions tell as much as a test's
