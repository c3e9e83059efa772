"""A map of examples by their features."""

import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import pad

# Decimals of a position: the last bits depend on the processor.
DECIMALS = 3


def project(features: Tensor) -> tuple[Tensor, list[float]]:
    """The first two principal components of features.

    Of all planes, that of these components keeps most of the variance (Pearson, "On lines and planes of closest fit",
    1901).  Examples that lie apart on the map have different features; those that lie together may still differ.

    Args:
        features: N x F, with N at least 2.

    Returns:
        The positions, float32, N x 2, in units of the first component's standard deviation, and the fractions of the
        variance along the two components; zeros if all features are equal.
    """
    if features.shape[1] == 1:
        features = pad(features, (0, 1))
    if (features == features[0]).all():
        return torch.zeros(len(features), 2), [0.0, 0.0]
    pca = PCA(n_components=2, svd_solver="covariance_eigh")
    positions = torch.from_numpy(pca.fit_transform(features.double().numpy()))
    rounded = (positions / positions[:, 0].std()).round(decimals=DECIMALS).add(0.0).float()  # -0 + 0 is 0
    return rounded, [round(fraction, DECIMALS) for fraction in pca.explained_variance_ratio_.tolist()]
