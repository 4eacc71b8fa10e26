"""Every private or undocumented name of Lightning, torch and Ray that the package touches: one typed function a fact.

Every other module uses public names only (tests/compat/test_private_names.py scans for private ones). Each function
names the release in which its fact was read. If a newer release has dropped the name, the function warns with
:class:`~lightning_mi.exceptions.MIWarning` and falls back, where a fallback exists.
"""
