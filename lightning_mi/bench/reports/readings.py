"""Readings of a training on the staircase: the recorded curve of each, and its name in tables and figures."""

READINGS = {
    "value": "per batch",
    "plug_in": "plug-in",
    "averaged_value": "averaged, per batch",
    "averaged_plug_in": "averaged, plug-in",
    "averaged_normalized": "averaged, normalized",
}
