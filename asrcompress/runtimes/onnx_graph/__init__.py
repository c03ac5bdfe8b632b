"""Model files in ONNX: any torch model by `torch.onnx.export` (`traced`), and hand-written graphs of our acoustic
models (`acoustic`), whose weights may be integers, codebooks or hashes. Nothing is written unless onnxruntime
gives torch's outputs."""
