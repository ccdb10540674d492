"""Holds README and docs against the program: commands exist, excerpts of --help are current, links lead somewhere.

`python -m scripts.docs_check [--write]`. A block that follows the comment `<!-- help: locum up -->` is the
output of `locum up --help`; --write brings such blocks up to date.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from locum.cli.main import COMMANDS, load_app

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
HELP = re.compile(
    r"(<!-- help: locum (?P<words>[^>]*?) *-->\n+```\w*\n)(?P<body>.*?)(^```$)", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
INLINE = re.compile(r"`(locum [^`\n]+)`")
COMMAND = re.compile(r"^(?:\$ |# )?(?:[A-Z_]+=\S+ )*(?:\S*/)?(?P<line>locum( .*)?)$")
PLACEHOLDER = re.compile(r"^[A-Z][A-Z0-9_.:,|'*-]*$|^\.\.\.$")
#: Where a shell would start another command or send the output elsewhere.
SHELL_END = ("|", "&&", "||", ";", "&", ">", ">>", "<", "2>")
HELP_WIDTH = "100"


def pages() -> list[Path]:
    """README, CHANGELOG and everything in docs."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def command_lines(text: str) -> Iterator[str]:
    """Every command line of locum in the page: in blocks, continued lines joined, and between back quotes."""
    for block in BLOCK.finditer(text):
        for line in block["body"].replace("\\\n", " ").splitlines():
            found = COMMAND.match(line.strip())
            if found and block["kind"] in ("", "sh", "console", "bash"):
                yield found["line"]
    yield from INLINE.findall(BLOCK.sub("", text))


def check_command_line(line: str) -> str | None:
    """What is wrong with a command line: an unknown command, option or number of arguments; None if nothing is."""
    words = _words(line)[1:]
    if not words or words[0] in ("--help", "--version", "COMMAND"):
        return None
    if words[0] not in COMMANDS:
        return f"no command {words[0]}"
    import typer.main

    command: Any = typer.main.get_command(load_app(COMMANDS[words[0]]))
    words = words[1:]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if PLACEHOLDER.match(name):
            return None
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    return next(
        (f"no option {word}" for word in words if _is_option(word) and not _has_option(command, word)), None
    )


def _words(line: str) -> list[str]:
    words = []
    for word in shlex.split(line, comments=True):
        if word in SHELL_END:
            break
        words.append(word.strip("[]"))
    return words


def _is_option(word: str) -> bool:
    return re.match(r"--?[a-z]", word) is not None


def _has_option(command: Any, word: str) -> bool:
    name = word.split("=", 1)[0]
    return name == "--help" or any(name in (*each.opts, *each.secondary_opts) for each in command.params)


def help_of(words: str) -> str:
    """What `locum WORDS --help` prints, in a terminal of a fixed width, without trailing blanks."""
    environment = {
        **os.environ,
        "COLUMNS": HELP_WIDTH,
        "TERMINAL_WIDTH": HELP_WIDTH,
        "NO_COLOR": "1",
        "TERM": "dumb",
    }
    done = subprocess.run(
        [sys.executable, "-m", "locum", *words.split(), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()) + "\n"


def refresh(text: str) -> str:
    """The page with every excerpt of --help as it would be printed now."""
    return HELP.sub(lambda found: found[1] + help_of(found["words"]) + found[4], text)


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Links to files that are not there, and to headings that the page does not have."""
    for found in LINK.finditer(BLOCK.sub("", text)):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            yield target
        elif anchor and anchor not in {
            _anchor(each) for each in HEADING.findall(path.read_text(encoding="utf-8"))
        }:
            yield f"{target}#{anchor}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check_page(page: Path, *, write: bool) -> list[str]:
    """Every fault of one page; with `write` the excerpts of --help are put right instead of reported."""
    text = page.read_text(encoding="utf-8")
    faults = []
    current = refresh(text)
    if current != text and write:
        page.write_text(current, encoding="utf-8")
    elif current != text:
        faults.append("an excerpt of --help is not current; make docs-write brings it up to date")
    for line in command_lines(current):
        wrong = check_command_line(line)
        if wrong is not None:
            faults.append(f"{wrong}: {line}")
    faults.extend(f"link to nothing: {target}" for target in broken_links(page, current))
    return faults


def main() -> int:
    """Check every page; 1 when one has a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="bring the excerpts of --help up to date")
    write = parser.parse_args().write
    faults = [f"{page.relative_to(ROOT)}: {each}" for page in pages() for each in check_page(page, write=write)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
