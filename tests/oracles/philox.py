"""Philox4x32-10 in Python integers (Salmon et al., SC 2011), and the documented visiting order built on it."""

from __future__ import annotations

Words = tuple[int, int, int, int]
MASK = 0xFFFFFFFF

# Published with Random123 (kat_vectors, philox4x32 10): counter, key, result.
KNOWN_ANSWERS: list[tuple[Words, tuple[int, int], Words]] = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK, MASK, MASK, MASK), (MASK, MASK), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four random 32-bit words."""
    for r in range(10):
        k0, k1 = (key[0] + r * 0x9E3779B9) & MASK, (key[1] + r * 0xBB67AE85) & MASK
        high0, low0 = divmod(counter[0] * 0xD2511F53, 1 << 32)
        high1, low1 = divmod(counter[2] * 0xCD9E8D57, 1 << 32)
        counter = (high1 ^ counter[1] ^ k0, low1, high0 ^ counter[3] ^ k1, low0)
    return counter


def order_row(T: int, seed: int, step: int, k: int, i: int) -> list[int]:
    """The j != i by increasing (key, j); the key of j is word j % 4 of Philox(step, k, i << 16 | j // 4; seed)."""
    counters = ((step & MASK, (step >> 32) & MASK, k, i << 16 | quarter) for quarter in range((T + 3) // 4))
    keys = [word for counter in counters for word in philox(counter, (seed & MASK, (seed >> 32) & MASK))]
    return sorted((j for j in range(T) if j != i), key=lambda j: (keys[j], j))
