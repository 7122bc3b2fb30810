"""Random draws that belong to a sample: a pure function of numbers, never of a global stream."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Generator


def uniform(generator: Generator, low: float, high: float) -> float:
    """One number drawn evenly from ``low..high``."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def beta(generator: Generator, alpha: float) -> float:
    """One number drawn from the beta distribution with both parameters ``alpha``."""
    seed = int(torch.randint(1 << 62, (), generator=generator))
    return float(np.random.Generator(np.random.PCG64(seed)).beta(alpha, alpha))


def generator_of(*numbers: int) -> Generator:
    """A generator seeded by a hash of integers, the same on every machine; neighbours have nothing in common."""
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
