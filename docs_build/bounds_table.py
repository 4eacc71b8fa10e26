"""A table of the bounds, from their declarations."""

from lightning_mi import bounds
from lightning_mi.bounds import AbstractBound

_COLUMNS = {
    "lower bound": "is_lower_bound",
    "upper bound": "is_upper_bound",
    "at most log N": "capped_at_log_n",
    "self-normalized": "self_normalized",
    "needs rows": "normalized_by_row",
    "needs log-densities": "needs_log_density",
}


def bounds_table() -> str:
    """The table in Markdown: a row for each bound, a column for each property that a bound declares."""
    rows = [["bound", *_COLUMNS], ["---"] * (1 + len(_COLUMNS))]
    for name in sorted(bounds.__all__, key=str.lower):
        bound = getattr(bounds, name)
        if isinstance(bound, type) and issubclass(bound, AbstractBound) and bound is not AbstractBound:
            properties = ["yes" if getattr(bound, attribute) else "" for attribute in _COLUMNS.values()]
            rows.append([f"[`{name}`][lightning_mi.bounds.{name}]", *properties])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
