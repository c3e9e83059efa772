"""What the Makefile runs beside the pipeline."""
