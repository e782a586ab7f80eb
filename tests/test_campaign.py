"""The campaign's table can be read; `scripts/campaign.sh` runs it."""

from collections import Counter

from campaign.table import KINDS, read_tables


def test_every_line_is_an_input_with_a_name_of_its_own():
    inputs = read_tables()
    assert len(inputs) > 300
    assert {item.kind for item in inputs} == set(KINDS)
    names = Counter((item.group, item.name) for item in inputs)
    assert [name for name, count in names.items() if count > 1] == []
