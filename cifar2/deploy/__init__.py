"""The final model outside of the pipeline: ONNX, model card, the command `cifar2`."""
