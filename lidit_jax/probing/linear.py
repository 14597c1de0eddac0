"""A linear probe: ridge regression onto one-hot classes; how often its largest output is right."""

import numpy as np
from scipy.stats import binomtest

from lidit_jax.evaluation.intervals import Score

PENALTIES = (1e-2, 1e-1, 1.0, 10.0, 100.0)  # of standardised inputs, per training prompt


def between(pooled_PxKxD: np.ndarray, y_PxK: np.ndarray, classes: int) -> list[list[Score]]:
    """Returns how well tokens at each place k (rows) predict the class at place j (columns)."""
    return [probe(pooled_PxKxD[:, k], y_PxK, classes) for k in range(pooled_PxKxD.shape[1])]


def probe(x_PxD: np.ndarray, y_PxJ: np.ndarray, classes: int) -> list[Score]:
    """Returns the accuracy of a linear map from x to each class y[:, j], with 95% intervals.

    Half of the prompts train it, a quarter chooses the penalty, and the results are of the last
    quarter. So an x without information about y is right 1 / classes of the time.
    Raises ValueError with fewer than 8 prompts.
    """
    P = len(x_PxD)
    if P < 8:
        raise ValueError(f"a probe needs 8 prompts or more; got {P}")
    train, choose, test = np.split(np.arange(P), [P // 2, 3 * P // 4])
    right_RxPxJ = _predicted(x_PxD, y_PxJ, classes, train) == y_PxJ
    best_J = right_RxPxJ[:, choose].mean(axis=1).argmax(axis=0)
    right_J = [right_RxPxJ[r, test, j].sum() for j, r in enumerate(best_J)]
    return [wilson(int(right), len(test)) for right in right_J]


def _predicted(x_PxD: np.ndarray, y_PxJ: np.ndarray, classes: int, train: np.ndarray) -> np.ndarray:
    """Returns the classes predicted by ridge regression on `train` prompts, [PENALTIES, P, J]."""
    mean_D, std_D = x_PxD[train].mean(axis=0), x_PxD[train].std(axis=0) + 1e-6
    x_PxD = ((x_PxD - mean_D) / std_D).astype(np.float64)
    wanted_PxJxC = np.eye(classes)[y_PxJ]
    mean_JxC = wanted_PxJxC[train].mean(axis=0)
    apart_PxJC = (wanted_PxJxC - mean_JxC).reshape(len(x_PxD), -1)
    values_D, vectors_DxD = np.linalg.eigh(x_PxD[train].T @ x_PxD[train])
    target_DxJC = vectors_DxD.T @ (x_PxD[train].T @ apart_PxJC[train])
    found = []
    for penalty in PENALTIES:
        shrunk_DxJC = target_DxJC / (values_D + penalty * len(train))[:, None]
        outputs_PxJC = x_PxD @ (vectors_DxD @ shrunk_DxJC)
        found.append((outputs_PxJC.reshape(wanted_PxJxC.shape) + mean_JxC).argmax(axis=-1))
    return np.stack(found)


def wilson(right: int, count: int) -> Score:
    """Returns a share with Wilson's 95% interval (E. B. Wilson, JASA 22, 1927)."""
    interval = binomtest(right, count).proportion_ci(method="wilson")
    return Score(right / count, float(interval.low), float(interval.high))
