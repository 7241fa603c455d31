"""AES-256 encryption of one block (FIPS 197), key schedule on the fly."""

import numpy as np

import flexllm_allo as allo
from flexllm_allo.ir.types import int32, uint8


def make_sbox() -> np.ndarray:
    p = q = 1
    box = [0] * 256
    while True:
        p = (p ^ (p << 1) ^ (0x1B if p & 0x80 else 0)) & 0xFF  # times 3
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09  # divided by 3
        turn = [(q << k | q >> (8 - k)) & 0xFF for k in range(5)]
        box[p] = turn[0] ^ turn[1] ^ turn[2] ^ turn[3] ^ turn[4] ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return np.array(box, dtype=np.uint8)


sbox = make_sbox()


def xtime(x: uint8) -> uint8:
    y: uint8 = x << 1
    if x[7] == 1:
        y = y ^ 0x1B
    return y


def sub_bytes(buf: uint8[16]):
    box: uint8[256] = sbox
    for i in range(16, name="sub"):
        buf[i] = box[buf[i]]


def shift_rows(buf: uint8[16]):
    old: uint8[16]
    for i in range(16):
        old[i] = buf[i]
    for c, r in allo.grid(4, 4, name="shift"):
        buf[c * 4 + r] = old[((c + r) % 4) * 4 + r]


def mix_columns(buf: uint8[16]):
    for c in range(4, name="mix"):
        a: uint8 = buf[c * 4]
        b: uint8 = buf[c * 4 + 1]
        d: uint8 = buf[c * 4 + 2]
        e: uint8 = buf[c * 4 + 3]
        every: uint8 = a ^ b ^ d ^ e
        buf[c * 4] ^= every ^ xtime(a ^ b)
        buf[c * 4 + 1] ^= every ^ xtime(b ^ d)
        buf[c * 4 + 2] ^= every ^ xtime(d ^ e)
        buf[c * 4 + 3] ^= every ^ xtime(e ^ a)


def expand_key(key: uint8[32], rc: uint8) -> uint8:
    box: uint8[256] = sbox
    key[0] ^= box[key[29]] ^ rc
    key[1] ^= box[key[30]]
    key[2] ^= box[key[31]]
    key[3] ^= box[key[28]]
    for i in range(4, 16):
        key[i] ^= key[i - 4]
    for i in range(16, 20):
        key[i] ^= box[key[i - 4]]
    for i in range(20, 32):
        key[i] ^= key[i - 4]
    next_rc: uint8 = xtime(rc)
    return next_rc


def aes256(key: uint8[32], buf: uint8[16]):
    rc: uint8 = 1
    for i in range(16, name="first_key"):
        buf[i] ^= key[i]
    for r in range(1, 14, name="round"):
        sub_bytes(buf)
        shift_rows(buf)
        mix_columns(buf)
        half: int32 = (r % 2) * 16
        if r % 2 == 0:
            rc = expand_key(key, rc)
        for i in range(16):
            buf[i] ^= key[half + i]
    sub_bytes(buf)
    shift_rows(buf)
    rc = expand_key(key, rc)
    for i in range(16, name="last_key"):
        buf[i] ^= key[i]


def check():
    s = allo.customize(aes256)
    s.unroll("sub_bytes:i")
    s.pipeline("mix_columns:c")
    key = np.arange(32, dtype=np.uint8)
    block = np.array([0x11 * i for i in range(16)], dtype=np.uint8)
    s.build()(key, block)
    assert block.tobytes().hex() == "8ea2b7ca516745bfeafc49904b496089"  # FIPS 197, appendix C.3
