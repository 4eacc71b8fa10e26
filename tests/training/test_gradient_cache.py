"""Encoding in chunks equals encoding at once, with the memory of one chunk."""

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from lightning_mi import bounds
from lightning_mi.training.gradient_cache import encode_in_chunks
from tests.helpers.processes import TIMEOUT
from tests.helpers.small_module import DIM, draw, equal, fit, make, weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class Rows(nn.Module):
    """Records the number of rows of each call."""

    def __init__(self, *layers):
        super().__init__()
        self.layers, self.calls = nn.Sequential(*layers), []

    def forward(self, x):
        self.calls.append(len(x))
        return self.layers(x)


def perceptron(*extra, seed=0):
    torch.manual_seed(seed)
    return Rows(nn.Linear(DIM, 16), nn.Tanh(), *extra, nn.Linear(16, DIM))


def saved_bytes(function):
    """Result, and bytes that autograd saves for backward."""
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function()
    return result, sum(sizes)


@pytest.mark.parametrize(("size", "bound"), [(1, bounds.DV), (3, bounds.InfoNCE), (8, bounds.DV), (100, bounds.DV)])
def test_gradients_equal_those_of_encoding_at_once(size, bound):
    gradients = []
    for chunk in (None, size):
        torch.manual_seed(0)
        module = make(bound(), encoder=perceptron(), encoder_chunk_size=chunk).double()
        module.step([view.double() for view in draw(8).batches[0]]).loss.backward()
        gradients.append([p.grad for p in module.parameters()])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-14)


def test_random_layers_draw_equal_numbers_in_both_passes():
    x = torch.randn(8, DIM)
    encoder = perceptron(nn.Dropout(0.5))
    torch.manual_seed(1)
    encode_in_chunks(encoder, x, 8).sum().backward()
    recomputed = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    torch.manual_seed(1)
    encoder(x).sum().backward()
    for expected, p in zip(recomputed, encoder.parameters(), strict=True):
        torch.testing.assert_close(expected, p.grad)


def test_no_activations_are_saved_for_backward():
    encoder, x = perceptron(), torch.randn(64, DIM)
    _, at_once = saved_bytes(lambda: encoder(x))
    out, chunked = saved_bytes(lambda: encode_in_chunks(encoder, x, 10))
    assert chunked < at_once / 10
    encoder.calls.clear()
    out.sum().backward()
    assert sorted(encoder.calls) == [4] + [10] * 6


def test_without_gradients_nothing_is_encoded_twice():
    encoder, x = perceptron(), torch.randn(5, DIM)
    with torch.no_grad():
        out = encode_in_chunks(encoder, x, 2)
        torch.testing.assert_close(out, encoder.layers(x))
    assert encoder.calls == [2, 2, 1]


def test_training_in_chunks_equals_training_at_once():
    trained = []
    for chunk in (None, 3):
        module = make(encoder=perceptron(), encoder_chunk_size=chunk)
        fit(module, draw(*[8] * 10))
        trained.append(weights(module))
    for name in trained[0]:
        torch.testing.assert_close(trained[1][name], trained[0][name], rtol=1e-4, atol=1e-6)
    assert not equal(trained[0], weights(make(encoder=perceptron())))  # it has trained


def test_two_ranks_train_in_chunks_as_at_once(tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for chunk in (None, 3):
        module = make(encoder=perceptron(), encoder_chunk_size=chunk)
        module.on_fit_end = lambda module=module, chunk=chunk: torch.save(weights(module), tmp_path / f"{chunk}.pt")
        strategy = DDPStrategy(start_method="fork", process_group_backend="gloo", timeout=TIMEOUT)
        fit(module, draw(*[8] * 10), devices=2, strategy=strategy)
    at_once, chunked = (torch.load(tmp_path / f"{chunk}.pt", weights_only=True) for chunk in (None, 3))
    for name in at_once:
        torch.testing.assert_close(chunked[name], at_once[name], rtol=1e-4, atol=1e-6)


def test_autocast_applies_to_the_second_pass():
    encoder, x = perceptron(), torch.randn(8, DIM)
    with torch.autocast("cpu", torch.bfloat16):
        encode_in_chunks(encoder, x, 3).float().sum().backward()
    chunked = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        encoder(x).float().sum().backward()
    for actual, p in zip(chunked, encoder.parameters(), strict=True):
        torch.testing.assert_close(actual, p.grad, rtol=0.02, atol=0.02)


def test_an_empty_chunk_is_an_error_at_construction():
    with pytest.raises(ValueError, match="encoder_chunk_size=0"):
        make(encoder=perceptron(), encoder_chunk_size=0)


def test_batch_normalization_in_chunks_is_an_error():
    encoder = perceptron(nn.BatchNorm1d(16))
    with pytest.raises(ValueError, match=r"BatchNorm1d \(`layers\.2`\)"):
        encode_in_chunks(encoder, torch.randn(8, DIM), 4)
    encode_in_chunks(encoder, torch.randn(8, DIM), 8)  # one chunk is the batch
    encode_in_chunks(encoder.eval(), torch.randn(8, DIM), 4)


def test_a_view_without_rows_is_an_error():
    module = make(encoder=perceptron(), encoder_chunk_size=4)
    with pytest.raises(TypeError, match="a view of type dict"):
        module.encode({"tokens": torch.zeros(8, DIM)})


def test_two_encoders_alternate_over_views():
    encoders = [perceptron(), perceptron(seed=1)]
    module = make(encoder=encoders, encoder_chunk_size=3)
    views = [torch.randn(8, DIM) for _ in range(4)]
    for i, encoded in enumerate(module.encode(*views)):
        torch.testing.assert_close(encoded, encoders[i % 2].layers(views[i]))
