"""Rows to models: fitted, exported to ONNX, parity-checked."""
