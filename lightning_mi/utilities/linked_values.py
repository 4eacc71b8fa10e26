"""Values of a YAML configuration that belong together: an anchor and its aliases."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import yaml


def linked_keys(path: Path) -> dict[str, list[str]]:
    r"""The keys of the aliases of each anchor in a configuration file.

    A recipe marks values that belong together by an anchor, `dim: &dim 20`, and aliases, `x_dim: *dim`.

    Args:
        path: The file.

    Returns:
        Dotted keys of aliases, by the dotted key of their anchor without `init_args`. Items of lists have no key.

    Raises:
        yaml.YAMLError: If the file is not valid YAML.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.yaml"
        >>> _ = file.write_text("data: {init_args: {dim: &dim 20}}\nmodel: {init_args: {x_dim: *dim}}")
        >>> linked_keys(file)
        {'data.dim': ['model.init_args.x_dim']}
    """
    keys: defaultdict[int, list[tuple[str, ...]]] = defaultdict(list)
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for key, node in _nodes(root, ()):
        keys[id(node)].append(key)  # an alias is the node of its anchor, which comes first
    return {short_key(".".join(first)): [".".join(key) for key in rest] for first, *rest in keys.values() if rest}


def short_key(key: str) -> str:
    """A dotted key without `init_args`.

    Example:
        >>> short_key("model.init_args.critic.init_args.x_dim")
        'model.critic.x_dim'
    """
    return ".".join(part for part in key.split(".") if part != "init_args")


def _nodes(node: yaml.Node | None, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for name, value in node.value:
        below = (*key, str(name.value))
        yield below, value
        yield from _nodes(value, below)
