"""PyTorch models through `from_pytorch`, against PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo.errors import FlexError
from flexllm_allo.frontend import from_pytorch
from flexllm_allo.ir.types import Fixed

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def agree(model, *inputs, atol=1e-5, **options):
    model = model.eval()
    built = from_pytorch(model, list(inputs), **options)
    got = built(*[x.numpy() for x in inputs])
    with torch.no_grad():
        want = model(*inputs)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=atol)
    return built


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.act = nn.Linear(8, 16), nn.GELU(approximate="tanh")
        self.fc2, self.norm, self.drop = nn.Linear(16, 8, bias=False), nn.LayerNorm(8), nn.Dropout(0.1)

    def forward(self, x):
        h = self.drop(self.fc2(self.act(self.fc1(x))))
        return torch.softmax(self.norm(x + h) / 2.0, dim=-1)


@pytest.mark.parametrize("shape", [(4, 8), (2, 4, 8), (2, 3, 4, 8)])
def test_mlp(shape):
    agree(Mlp(), torch.randn(shape))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.register_buffer("mask", torch.triu(torch.full((4, 4), -1e9), 1))

    def forward(self, x):
        B, L, D = x.size()
        q, k, v = (f(x).view(B, L, 2, D // 2).transpose(1, 2) for f in self.qkv)
        score = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(D // 2) + self.mask
        y = torch.matmul(nn.functional.softmax(score, dim=-1), v)
        return y.permute(0, 2, 1, 3).contiguous().view(B, L, D)


def test_attention():
    agree(Attention(), torch.randn(2, 4, 8))


def test_images():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 5), nn.LogSoftmax(dim=-1),
    )  # fmt: skip
    model[1].running_mean.uniform_(-1, 1)
    model[1].running_var.uniform_(0.5, 2)
    agree(model, torch.randn(2, 3, 8, 8))


def test_schedule_holds_the_schedules_of_the_library():
    s = from_pytorch(Mlp(), [torch.randn(4, 8)], target="mlir")
    assert isinstance(s, allo.Schedule)
    assert s.top_func_name == "forward"
    code = s.build(target="vhls").hls_code
    assert code.count("#pragma HLS pipeline II=1") == 3 + 1 + 3 + 3 + 2
    assert "void linear2d_fc1(" in code


def test_weights_as_arguments():
    built = agree(Mlp(), torch.randn(4, 8), weights_as_args=True)
    assert [w.shape for w in built.weight_data] == [(16, 8), (16,), (8, 16), (8,), (8,), (8,)]


class Parts(nn.Module):
    def forward(self, x, y):
        return torch.cat([x[:, 1:3], y[:, :2], x[:, 0:1]], dim=1) * x[0], x[1, 2] - 1.0


def test_slices_and_several_results():
    x, y = torch.randn(2, 5, 3), torch.randn(2, 4, 3)
    x[0] = x[0, :1]
    got = from_pytorch(Parts(), [x, y], op_dtypes={"outputs": "float64"})(x.numpy(), y.numpy())
    assert [g.dtype for g in got] == [np.float64] * 2
    for g, want in zip(got, Parts()(x, y), strict=True):
        np.testing.assert_allclose(g, want.numpy(), rtol=1e-5)


def test_types_by_layer():
    model, x = nn.Sequential(nn.Linear(8, 4), nn.ReLU()), torch.randn(3, 8)
    built = from_pytorch(model, [x], op_dtypes={"0": [Fixed(16, 8), Fixed(16, 8), Fixed(32, 16)]})
    with torch.no_grad():
        want = model(x).numpy()
    got = built(x.numpy())
    np.testing.assert_allclose(got, want, atol=0.05)
    assert np.abs(got - want).max() > 1e-5  # it is fixed point
    np.testing.assert_array_equal(got * 2**16, np.round(got * 2**16))


def test_what_is_not_supported_is_named():
    with pytest.raises(FlexError, match=r'FX603: Unsupported module Tanhshrink \("1"\)') as caught:
        from_pytorch(nn.Sequential(nn.Linear(4, 4), nn.Tanhshrink()), [torch.randn(2, 4)])
    assert isinstance(caught.value, NotImplementedError)
    with pytest.raises(FlexError, match=r"Unsupported function cumsum"):
        from_pytorch(_Cumsum(), [torch.randn(2, 4)])


class _Cumsum(nn.Module):
    def forward(self, x):
        return torch.cumsum(x, 0)
