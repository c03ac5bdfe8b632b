"""Files for devices: a packed model as ONNX, and sherpa-onnx, the runtime that reads it there."""
