"""Products with a large matrix: as exact as PyTorch's own, a row the same whatever stands beside it, in few sizes."""

from __future__ import annotations

import pytest
import torch

from visit.models import product as module
from visit.models.product import SIZES, product

ROWS = [0, 1, 2, 7, 8, 9, 31, 127, 128, 129, 300]
needs_onednn = pytest.mark.skipif(not module._has_onednn(), reason="this PyTorch has no oneDNN, or this is no x86")


@pytest.fixture(scope="module")
def matrix():
    torch.manual_seed(0)
    return torch.randn(ROWS[-1], 96), torch.randn(1003, 96), torch.randn(1003)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_product_within_rounding(matrix, rows, with_bias):
    """Float64 decides, and so does the most that 96 roundings can come to."""
    x, weight, bias = matrix[0][:rows], matrix[1], matrix[2] if with_bias else None
    true = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    most = 2**-23 * 97 * (x.double().abs() @ weight.double().abs().T + 3)
    found = product(x, weight, bias)
    assert found.shape == (rows, 1003) and found.dtype == torch.float32
    assert bool(((found.double() - true).abs() <= most).all())


@needs_onednn
def test_what_a_row_gives_does_not_depend_on_the_rows_beside_it(matrix):
    x, weight, bias = matrix
    whole = product(x, weight, bias)
    assert all(torch.equal(product(x[:rows], weight, bias), whole[:rows]) for rows in ROWS)


@needs_onednn
def test_code_is_compiled_for_few_numbers_of_rows(matrix, monkeypatch):
    """One of a megabyte for every number of rows would fill the memory of a server."""
    seen, real = set(), torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda x, *rest: seen.add(len(x)) or real(x, *rest), raising=False
    )
    for rows in range(1, 300):
        product(matrix[0][:rows], matrix[1])
    assert seen == {*SIZES}


def test_float64_and_gradients_are_left_to_pytorch(matrix):
    x, weight, bias = (part.double() for part in matrix)
    assert torch.equal(product(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    one = matrix[0][:3].clone().requires_grad_()
    product(one, matrix[1]).sum().backward()
    torch.testing.assert_close(one.grad, matrix[1].sum(0).expand(3, -1), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert not product(one, matrix[1]).requires_grad
