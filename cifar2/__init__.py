"""CIFAR-2: airplanes against birds, with backpropagation and SGD written by hand.

The library knows nothing of DVC: the scripts in ``stages/`` read and write its files.
"""

import os

# MKL picks its matrix kernels by processor; the AVX2 ones give the same bits on Intel and AMD.  It reads the variable
# once, when torch loads it, hence here, before any module of this package imports torch.
os.environ.setdefault("MKL_CBWR", "AVX2")
