"""Commands of the Makefile besides the pipeline."""

import cifar2  # noqa: F401 (reports a missing environment before a tool imports from it)
