"""What is done to training pictures, a whole batch at a time, each picture in its own random way.

torchvision's transforms draw one change for a whole batch, and so would have to be called picture by picture; these
draw a change for each, and give what ``torchvision.transforms.v2.functional`` gives for it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# How much red, green and blue count in brightness: ITU-R BT.601, as in torchvision.
GREY = (0.2989, 0.587, 0.114)


def augment(x: Tensor, flip: bool, shift: int, jitter: float, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Other pictures of the same things, drawn from PyTorch's global random state.

    Args:
        x: normalised pictures, float, N x 3 x H x W.
        flip: half of them become their mirror images.
        shift: each moves by -shift .. shift pixels along both axes; what it leaves free reflects what is beside it.
        jitter: brightness, contrast and saturation, in this order, each change by a factor of 1 - jitter .. 1 + jitter.
        mean: of the normalisation, by channel.
        std: likewise.
    """
    if flip or shift:
        x = _moved(x, *_places(x, flip, shift))
    if jitter:
        brightness, contrast, saturation = 1 + jitter * (2 * torch.rand(3, len(x), 1, 1, 1, device=x.device) - 1)
        x = _coloured(x, brightness, contrast, saturation, mean, std)
    return x


def _places(x: Tensor, flip: bool, shift: int) -> tuple[Tensor, Tensor]:
    """For each picture the row and the column that each of its rows and columns is taken from, N x H and N x W."""
    n, _, height, width = x.shape
    mirrored = torch.rand(n, 1, device=x.device) < (0.5 if flip else 0.0)
    moves = torch.randint(-shift, shift + 1, (2, n, 1), device=x.device)
    rows, columns = (
        _reflected(torch.arange(size, device=x.device) + move, size)
        for size, move in zip((height, width), moves, strict=True)
    )
    return rows, torch.where(mirrored, columns.flip(1), columns)


def _reflected(places: Tensor, size: int) -> Tensor:
    last = size - 1
    return last - (last - places.abs()).abs()


def _moved(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    places = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view(n, 1, -1).expand(n, channels, -1)
    return x.flatten(2).gather(2, places).view(n, channels, height, width)


def _coloured(
    x: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    mean_, std_, weights = (x.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std, GREY))
    pixels = (x * std_ + mean_).mul_(brightness).clamp_(0, 1)
    grey = (pixels * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixels = torch.lerp(grey, pixels, contrast).clamp_(0, 1)
    grey = (pixels * weights).sum(1, keepdim=True)
    return torch.lerp(grey, pixels, saturation).clamp_(0, 1).sub_(mean_).div_(std_)
