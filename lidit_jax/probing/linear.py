"""A linear probe: ridge regression onto one-hot classes, and how often its largest output is right."""

import dataclasses

import numpy as np

PENALTIES = (1e-2, 1e-1, 1.0, 10.0, 100.0)  # of standardised inputs, per training prompt


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The share of held-out prompts that are right, and its 95% interval (Wilson's)."""

    value: float
    low: float
    high: float


def probe(x_PxD: np.ndarray, y_P: np.ndarray, classes: int) -> Accuracy:
    """Returns how well class y can be read from x by a linear map.

    Half of the prompts train it, a quarter chooses the penalty, and the last quarter is told of. So an x
    that says nothing of y is right 1 / classes of the time.
    Raises ValueError with fewer than 8 prompts.
    """
    if len(x_PxD) < 8:
        raise ValueError(f"a probe of {len(x_PxD)} prompts; want 8 or more")
    train, choose, test = np.split(np.arange(len(x_PxD)), [len(x_PxD) // 2, 3 * len(x_PxD) // 4])
    mean_D, std_D = x_PxD[train].mean(axis=0), x_PxD[train].std(axis=0) + 1e-6
    x_PxD = ((x_PxD - mean_D) / std_D).astype(np.float64)
    wanted_PxC = np.eye(classes)[y_P]
    gram_DxD = x_PxD[train].T @ x_PxD[train]
    values_D, vectors_DxD = np.linalg.eigh(gram_DxD)
    target_DxC = vectors_DxD.T @ (x_PxD[train].T @ (wanted_PxC[train] - wanted_PxC[train].mean(0)))
    shares = {}
    for penalty in PENALTIES:
        weights_DxC = vectors_DxD @ (target_DxC / (values_D + penalty * len(train))[:, None])
        right_P = (x_PxD @ weights_DxC + wanted_PxC[train].mean(0)).argmax(axis=1) == y_P
        shares[penalty] = right_P[choose].mean(), right_P[test]
    right = max(shares.values(), key=lambda found: found[0])[1]
    return wilson(int(right.sum()), len(right))


def wilson(right: int, count: int) -> Accuracy:
    """Returns a share with Wilson's 95% interval (E. B. Wilson, JASA 22, 1927)."""
    z = 1.959964
    share = right / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Accuracy(share, max(float(centre - half), 0.0), min(float(centre + half), 1.0))


def between(pooled_PxKxD: np.ndarray, y_PxK: np.ndarray, classes: int) -> list[list[Accuracy]]:
    """Returns for tokens at each place k (rows) how well they tell the class at each place j (columns)."""
    K = y_PxK.shape[1]
    return [[probe(pooled_PxKxD[:, k], y_PxK[:, j], classes) for j in range(K)] for k in range(K)]
