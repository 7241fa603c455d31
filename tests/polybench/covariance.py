"""Covariance matrix of M variables over N observations."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo import params, template
from flexllm_allo.ir.types import float32

T, M, N = params("T, M, N")


@template(T, M, N)
def covariance(data: "T[N, M]", mean: "T[M]", cov: "T[M, M]"):
    for x in allo.grid(M, name="mean"):
        total: T = 0
        for k in allo.reduction(N):
            total += data[k, x]
        mean[x] = total / N
    for i, j in allo.grid(M, M, name="cov"):
        acc: T = 0
        for p in allo.reduction(N):
            acc += (data[p, i] - mean[i]) * (data[p, j] - mean[j])
        cov[i, j] = acc / (N - 1)


def check():
    m, n = 5, 12
    s = allo.customize(covariance, instantiate=[float32, m, n])
    s.pipeline(s.get_loops()["mean"]["k"])
    s.pipeline("p")
    s.unroll(s.get_loops()["cov"]["j"], factor=5)
    data = np.random.rand(n, m).astype(np.float32)
    cov = np.zeros((m, m), np.float32)
    s.build()(data, np.zeros(m, np.float32), cov)
    np.testing.assert_allclose(cov, np.cov(data.T), rtol=1e-3, atol=1e-5)
