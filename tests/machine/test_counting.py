from __future__ import annotations

import pytest

from o2o.machine.counting import counted


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "run", "1 run"), (2, "run", "2 runs"), (0, "process", "0 processes"), (1, "process", "1 process")],
)
def test_a_noun_agrees_with_its_number(number, noun, said):
    assert counted(number, noun) == said
