"""Handwritten digits, a folder per digit, from scikit-learn: ``python examples/digits.py data/images``.

Alpaydin and Kaynak, "Optical recognition of handwritten digits", 1998: 1,797 images of 8 x 8 pixels.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for n, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
    path = Path(sys.argv[1], str(digit), f"{n:04}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).save(path)
