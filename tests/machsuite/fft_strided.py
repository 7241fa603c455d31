"""Radix-2 decimation-in-frequency FFT with strides."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import float64, int32

SIZE = 32


def fft(real: float64[SIZE], img: float64[SIZE], tw_re: float64[SIZE // 2], tw_im: float64[SIZE // 2]):
    log: int32 = 0
    span: int32 = SIZE >> 1
    while span != 0:
        odd: int32 = span
        while odd < SIZE:
            odd = odd | span
            even: int32 = odd ^ span
            re: float64 = real[even] + real[odd]
            real[odd] = real[even] - real[odd]
            real[even] = re
            im: float64 = img[even] + img[odd]
            img[odd] = img[even] - img[odd]
            img[even] = im
            root: int32 = (even << log) & (SIZE - 1)
            if root > 0:
                t: float64 = tw_re[root] * real[odd] - tw_im[root] * img[odd]
                img[odd] = tw_re[root] * img[odd] + tw_im[root] * real[odd]
                real[odd] = t
            odd += 1
        span = span >> 1
        log += 1


def check():
    x = np.random.rand(SIZE) + 1j * np.random.rand(SIZE)
    w = np.exp(-2j * np.pi * np.arange(SIZE // 2) / SIZE)
    re, im = x.real.copy(), x.imag.copy()
    allo.customize(fft).build()(re, im, w.real.copy(), w.imag.copy())
    order = [int(f"{i:05b}"[::-1], 2) for i in range(SIZE)]
    np.testing.assert_allclose((re + 1j * im)[order], np.fft.fft(x), rtol=1e-9)
