"""``dynaconv serve``: a trained network behind HTTP.

- loading, exported: a checkpoint, or an ONNX file -> what is served
- reading: the body of a request -> images and options
- admission: how much may be inside at a time
- batching: concurrent requests -> batches, in one thread
- model: a batch -> predictions and routing weights
- service: what becomes of a request
- app: routes, their description, headers; page.html
- server: socket, uvicorn, signals
"""
