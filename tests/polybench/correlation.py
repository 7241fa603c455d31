"""Correlation matrix of M variables over N observations."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float32

M, N = 6, 20
epsilon = 0.1


def compute_mean(data: float32[N, M], mean: float32[M]):
    for x in allo.grid(M):
        total: float32 = 0.0
        for k in allo.reduction(N):
            total += data[k, x]
        mean[x] = total / N


def compute_stddev(data: float32[N, M], mean: float32[M], stddev: float32[M]):
    for x in allo.grid(M):
        variance: float32 = 0.0
        for m in allo.reduction(N):
            variance += (data[m, x] - mean[x]) * (data[m, x] - mean[x])
        deviation: float32 = allo.sqrt(variance / N)
        if deviation <= epsilon:
            stddev[x] = 1.0
        else:
            stddev[x] = deviation


def center_reduce(data: float32[N, M], mean: float32[M], stddev: float32[M]):
    for x, y in allo.grid(N, M):
        d: float32 = data[x, y]
        root: float32 = allo.sqrt(N * 1.0)
        d -= mean[y]
        d /= root * stddev[y]
        data[x, y] = d


def compute_corr(data: float32[N, M], corr: float32[M, M]):
    for i in allo.grid(M - 1):
        corr[i, i] = 1.0
        for j in range(i + 1, M):
            total: float32 = 0.0
            for k in range(N):
                total += data[k, i] * data[k, j]
            corr[i, j] = total
            corr[j, i] = total
    corr[M - 1, M - 1] = 1.0


def correlation(data: float32[N, M], mean: float32[M], stddev: float32[M], corr: float32[M, M]):
    compute_mean(data, mean)
    compute_stddev(data, mean, stddev)
    center_reduce(data, mean, stddev)
    compute_corr(data, corr)


def check():
    s = allo.customize(correlation)
    s.pipeline("compute_mean:k")
    s.pipeline("compute_stddev:m")
    s.pipeline("center_reduce:y")
    s.pipeline("compute_corr:k")
    data = np.random.rand(N, M).astype(np.float32) * 4
    want = np.corrcoef(data.T.astype(np.float64))
    corr = np.zeros((M, M), np.float32)
    s.build()(data, np.zeros(M, np.float32), np.zeros(M, np.float32), corr)
    np.testing.assert_allclose(corr, want, rtol=1e-3, atol=1e-4)
