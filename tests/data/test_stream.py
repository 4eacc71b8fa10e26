"""Batches are pure functions of (seed, split, step)."""

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch.utils.data import get_worker_info

from lightning_mi.data import BatchStream, StreamLoader, batch_generator


def draw(step, num_rows, generator):
    """A batch of noise, its step, and the worker that drew it (-1 for none)."""
    worker = get_worker_info()
    origin = torch.full((num_rows,), -1 if worker is None else worker.id)
    return torch.rand(num_rows, 2, generator=generator), torch.full((num_rows,), step), origin


def stream(**kwargs):
    return BatchStream(draw, **{"seed": 3, "split": "train", "batch_size": 4, "num_batches": 7, **kwargs})


def loader(**kwargs):
    return StreamLoader(draw, **{"seed": 3, "split": "train", "batch_size": 4, "num_batches": 7, **kwargs})


def test_generators_are_equal_only_for_equal_keys():
    keys = [
        (seed, split, step) for seed in (0, 1, 2**40) for split in ("train", "val", "test") for step in (0, 1, 9999)
    ]
    draws = {torch.rand(2, generator=batch_generator(*key)).sum().item() for key in keys}
    assert len(draws) == len(keys)
    assert {torch.rand(2, generator=batch_generator(*key)).sum().item() for key in keys} == draws


def test_batches_of_a_run_have_different_generators():
    seeds = {batch_generator(0, split, step).initial_seed() for split in ("train", "val") for step in range(50_000)}
    assert len(seeds) == 100_000
    assert max(seeds) < 2**32  # torch ignores the higher bits


def test_consecutive_steps_are_uncorrelated():
    normals = torch.stack(
        [torch.randn(64, generator=batch_generator(0, "train", step)) for step in range(2000)]
    ).double()
    correlation = np.corrcoef(normals.flatten()[:-64], normals.flatten()[64:])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(normals.numel())
    assert abs(normals.mean()) < 4 / np.sqrt(normals.numel())
    assert abs(normals.var() - 1) < 4 * np.sqrt(2 / normals.numel())


def test_seeds_and_steps_out_of_range_raise():
    with pytest.raises(ValueError, match="seed=-1"):
        batch_generator(-1, "train", 0)
    for step in (-1, 2**32 // 3):
        with pytest.raises(ValueError, match=f"Got step={step}: the steps"):
            batch_generator(0, "train", step)


def test_batches_do_not_depend_on_workers():
    alone, parallel = list(loader()), list(loader(num_workers=2))
    assert [batch[2][0].item() for batch in alone] == [-1] * 7
    assert [batch[2][0].item() for batch in parallel] == [0, 1, 0, 1, 0, 1, 0]
    for batch, expected in zip(alone, parallel, strict=True):
        assert type(batch) is type(expected) is tuple
        assert torch.equal(batch[0], expected[0])
        assert torch.equal(batch[1], expected[1])


def test_ranks_draw_shards_of_the_global_batch():
    world_size, size = 4, 2
    shards = [stream(batch_size=size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, whole in enumerate(stream(batch_size=8)):
        drawn = [shard.batch(step) for shard in shards]
        assert torch.equal(torch.cat([batch[0] for batch in drawn]), whole[0])
        assert all(batch[0].is_contiguous() and len(batch[0]) == size for batch in drawn)


def test_loader_uses_rank_and_world_size_of_the_trainer(monkeypatch):
    trainer = L.Trainer(barebones=True)
    monkeypatch.setattr(L.Trainer, "world_size", property(lambda _: 2))
    monkeypatch.setattr(L.Trainer, "global_rank", property(lambda _: 1))
    second_half = next(iter(loader(trainer=trainer)))
    assert torch.equal(second_half[0], next(iter(loader(batch_size=8)))[0][4:])


def test_start_skips_batches_without_changing_them():
    for late, early in zip(stream(start=3, num_batches=4), list(stream())[3:], strict=True):
        assert torch.equal(late[0], early[0])
        assert torch.equal(late[1], early[1])


def test_law_step_changes_the_law_but_not_the_noise():
    for fixed, moving in zip(stream(law_step=100), stream(), strict=True):
        assert torch.equal(fixed[0], moving[0])
        assert fixed[1].tolist() == [100] * 4


def test_loader_keeps_the_global_random_state():
    before = torch.get_rng_state()
    list(loader())
    assert torch.equal(torch.get_rng_state(), before)


def test_loader_without_trainer_restarts_at_each_iteration():
    restarting = loader()
    assert len(restarting) == 7
    assert (
        [batch[1][0].item() for batch in restarting] == [batch[1][0].item() for batch in restarting] == list(range(7))
    )
