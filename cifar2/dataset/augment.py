"""Data augmentation, batched, with independent random parameters per image.

torchvision's transforms draw one set of parameters per batch, so they would have to be called image by image.  Given
the parameters, the results here are those of ``torchvision.transforms.v2.functional``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Weights of red, green and blue in grey: ITU-R BT.601, as in torchvision.
GREY = (0.2989, 0.587, 0.114)


def augment(x: Tensor, flip: bool, shift: int, jitter: float, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Randomly changed copies of images, drawn from PyTorch's global random state.

    Args:
        x: normalised images, float, N x 3 x H x W.
        flip: whether to mirror each image with probability 1/2.
        shift: largest shift along each axis in pixels; borders are filled by reflection.
        jitter: brightness, contrast and saturation, in this order, are multiplied by 1 - jitter .. 1 + jitter.
        mean: mean of the normalisation, by channel.
        std: standard deviation of the normalisation, by channel.
    """
    if flip or shift:
        x = _move(x, *_source_indices(x, flip, shift))
    if jitter:
        brightness, contrast, saturation = 1 + jitter * (2 * torch.rand(3, len(x), 1, 1, 1, device=x.device) - 1)
        x = _recolour(x, brightness, contrast, saturation, mean, std)
    return x


def _source_indices(x: Tensor, flip: bool, shift: int) -> tuple[Tensor, Tensor]:
    """The source row of each row and the source column of each column, N x H and N x W."""
    n, _, height, width = x.shape
    mirrored = torch.rand(n, 1, device=x.device) < (0.5 if flip else 0.0)
    moves = torch.randint(-shift, shift + 1, (2, n, 1), device=x.device)
    rows, columns = (
        _reflect(torch.arange(size, device=x.device) + move, size)
        for size, move in zip((height, width), moves, strict=True)
    )
    return rows, torch.where(mirrored, columns.flip(1), columns)


def _reflect(indices: Tensor, size: int) -> Tensor:
    last = size - 1
    return last - (last - indices.abs()).abs()


def _move(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    pixels = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(n, 1, -1).expand(n, channels, -1)
    return x.flatten(2).gather(2, pixels).view(n, channels, height, width)


def _recolour(
    x: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    mean_, std_, weights = (x.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std, GREY))
    # In place: a new tensor costs more than the arithmetic on it.
    pixels = (x * std_).add_(mean_).mul_(brightness).clamp_(0, 1)
    grey = (pixels * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    torch.lerp(grey, pixels, contrast, out=pixels).clamp_(0, 1)
    grey = (pixels * weights).sum(1, keepdim=True)
    return torch.lerp(grey, pixels, saturation, out=pixels).clamp_(0, 1).sub_(mean_).div_(std_)
