"""What a process that trains sets for itself, so that many of them share a machine well."""

from lightning_mi.freed_memory import keep_freed_memory


def settle() -> None:
    """Use one thread, and keep freed memory for the next step.

    Small matrices are fastest on one thread, and processes of one thread each do not contend for cores.
    """
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
