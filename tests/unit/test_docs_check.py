"""The check of the documentation finds what it is for."""

from pathlib import Path

import pytest
from scripts import docs_check


def test_command_lines_are_found_in_blocks_and_between_back_quotes() -> None:
    text = """
Run `locum up --data x` first.

```sh
# a comment
$ .venv/bin/locum enroll terminal a \\
    --out b | cat
LOCUM_DATA=x locum trust list
other locum words
```
"""
    assert list(docs_check.command_lines(text)) == [
        "locum enroll terminal a      --out b | cat",
        "locum trust list",
        "locum up --data x",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "locum --help",
        "locum demo --every-step",
        "locum demo > file",
        "locum demo --help   # comment",
        "locum demo | cat --nonsense",
        "locum COMMAND --help",
    ],
)
def test_right_command_lines_pass(line: str) -> None:
    assert docs_check.check_command_line(line) is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("locum frobnicate", "no command frobnicate"),
        ("locum demo --nonsense", "no option --nonsense"),
        ("locum demo --nonsense=3", "no option --nonsense=3"),
    ],
)
def test_wrong_command_lines_are_told(line: str, fault: str) -> None:
    assert docs_check.check_command_line(line) == fault


def test_stale_help_is_reported_and_then_refreshed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- help: locum demo -->\n```\nold\n```\n")
    assert any("not current" in fault for fault in docs_check.check_page(page, write=False))
    assert docs_check.check_page(page, write=True) == []
    assert "--every-step" in page.read_text()
    assert docs_check.check_page(page, write=False) == []


def test_broken_links_are_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# A title\n[a](page.md) [b](gone.md) [c](#a-title) [d](#nowhere) [e](https://example.com/x)"
    page.write_text(text)
    assert list(docs_check.broken_links(page, text)) == ["gone.md", "#nowhere"]
