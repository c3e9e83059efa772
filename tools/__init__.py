"""What the Makefile runs beside the pipeline."""

import cifar2  # noqa: F401 (reports a missing environment before a tool imports from it)
