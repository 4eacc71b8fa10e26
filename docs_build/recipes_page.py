"""The page of recipes, from the comments at the top of their files."""

import re
from pathlib import Path

from lightning_mi.utilities.recipe_registry import list_files

_FOLDERS = {
    "": "Known mutual information",
    "supervised": "Labels",
    "contrastive": "Features",
    "plane": "Layers",
    "minimize": "Removing information",
    "bottleneck": "Bottleneck",
}
_COMMANDS = ("Launch", "Watch")


def recipes_page() -> str:
    """Markdown: a section for each recipe, with what it does, how it is run, and its measured result."""
    lines = [
        "# Recipes",
        "",
        "A recipe is one YAML file that documents and runs a training: `lightning-mi fit --config NAME`. "
        "`lightning-mi cp NAME mine.yaml` copies it to edit. A benchmark is a grid of trainings, `lightning-mi bench "
        "NAME`; results and figures are on the page [Benchmarks](benchmarks.md). Each result below was measured with "
        "the command beside it.",
    ]
    for folder, title in _FOLDERS.items():
        lines += ["", f"## {title}"]
        for file in list_files("recipe"):
            if file.name.rpartition("/")[0] == folder:
                lines += ["", *_section(file.name, _header(file.path))]
    lines += ["", "## Benchmarks"]
    for file in list_files("benchmark"):
        title, *rest = _header(file.path)
        lines += [
            "",
            f"### `bench {file.name}`",
            "",
            title,
            "",
            "```text",
            *"\n".join(rest).strip("\n").splitlines(),
            "```",
        ]
    return "\n".join(lines) + "\n"


def fields(header: list[str]) -> dict[str, list[str]]:
    """The fields of a header: the lines of each, without the indent.

    Example:
        >>> fields(["What:    One thing", "         in two lines.", "Time:    a minute"])
        {'What': ['One thing', 'in two lines.'], 'Time': ['a minute']}
    """
    found: dict[str, list[str]] = {}
    for line in header:
        if match := re.match(r"(\w+): +(.*)", line):
            found[match[1]] = [match[2]]
        elif line.strip() and found:
            found[list(found)[-1]].append(line.strip())
    return found


def _section(name: str, header: list[str]) -> list[str]:
    lines = [f"### `{name}`", "", header[0]]
    for field, text in fields(header[1:]).items():
        if field in _COMMANDS:
            lines += ["", "```console", *map(_with_comment, text), "```"]
        else:
            lines += ["", f"**{field}.** {' '.join(text)}"]
    return lines


def _with_comment(line: str) -> str:
    """A command with the remark behind it as a comment."""
    command, *remark = re.split(r" {3,}", line, maxsplit=1)
    return f"{command}  # {remark[0].strip('()')}" if remark else command


def _header(path: Path) -> list[str]:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines
