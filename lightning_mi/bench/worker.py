"""Settings of a process that trains cells of a grid."""


def configure_worker() -> None:
    """Use one thread: it is fastest for small matrices, and parallel workers do not compete for cores."""
    import torch

    torch.set_num_threads(1)
