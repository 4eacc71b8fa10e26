"""Settings of a process that trains cells of a grid."""


def configure_worker() -> None:
    """Use one thread: small matrices are fastest on one, and single-threaded processes do not contend for cores."""
    import torch

    torch.set_num_threads(1)
