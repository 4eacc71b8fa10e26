"""The page of recipes, from the comments at the top of their files."""

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
                lines += ["", *_section(file.name, file.path)]
    lines += ["", "## Benchmarks"]
    for file in list_files("benchmark"):
        lines += ["", *_section(f"bench {file.name}", file.path)]
    return "\n".join(lines) + "\n"


def _section(name: str, path: Path) -> list[str]:
    header = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.removeprefix("#").removeprefix(" "))
    title, *rest = header
    return [f"### `{name}`", "", title, "", "```text", *"\n".join(rest).strip("\n").splitlines(), "```"]
