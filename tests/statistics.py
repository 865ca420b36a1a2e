"""Statistical assertions that state both of their error rates."""

import math

import torch
from torch import Tensor


def total_variation_bound(num_samples: int, num_outcomes: int, false_fail_rate: float) -> float:
    """TV distance that a correct sampler exceeds with probability at most `false_fail_rate`.

    E[TV] <= sqrt(k/n)/2, and McDiarmid's inequality on n draws that each move TV by 1/n at most.
    """
    mean = 0.5 * math.sqrt(num_outcomes / num_samples)
    return mean + math.sqrt(math.log(1 / false_fail_rate) / (2 * num_samples))


def assert_law(outcomes: Tensor, law: Tensor, *, false_fail_rate: float, detects: float) -> None:
    """Fail if `outcomes`, ids into `law`, were not drawn from it; prove `detects` resolvable."""
    bound = total_variation_bound(len(outcomes), len(law), false_fail_rate)
    assert 2 * bound <= detects, f"too few samples: resolves TV {2 * bound:.4f}, not {detects}"
    observed = torch.bincount(outcomes, minlength=len(law)).double() / len(outcomes)
    distance = 0.5 * (observed - law.double()).abs().sum().item()
    assert distance <= bound, f"TV {distance:.4f} > {bound:.4f} at rate {false_fail_rate:g}"
