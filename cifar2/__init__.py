"""CIFAR-2: airplanes against birds, with backpropagation and SGD written by hand.

The library knows nothing of DVC: the scripts in ``stages/`` read and write its files.
"""

import os

# MKL picks its matrix kernels by processor; the AVX2 ones give the same bits on Intel and AMD.  It reads the variable
# at its first product, hence here, before any module of this package can ask for one.
os.environ.setdefault("MKL_CBWR", "AVX2")
