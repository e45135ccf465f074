"""docs/settings.md is made from the settings."""

from __future__ import annotations

from sdgrpc.settings import described_settings
from tools.settings_docs import PAGE, page


def test_the_page_is_fresh() -> None:
    """What is committed is what `make gen` writes."""
    assert PAGE.read_text(encoding="utf-8") == page(described_settings())


def test_the_page_is_complete() -> None:
    """Every setting's flags and variable have a row, with the description."""
    rows = [line for line in page(described_settings()).splitlines() if line.startswith("| `--")]
    assert len(rows) == len(described_settings())
    for one, row in zip(described_settings(), rows, strict=True):
        assert all(f"`{flag}`" in row for flag in one.flag.split("/"))
        assert f"`{one.variable}`" in row
        assert one.description in row


def test_a_row_is_one_row() -> None:
    """No value breaks the table: each row has as many bars as its head."""
    rows = [line for line in page(described_settings()).splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {6}
