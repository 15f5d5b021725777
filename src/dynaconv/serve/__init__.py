"""``dynaconv serve``: a trained network behind HTTP.

reading     a request's body -> images and options          admission   how many images may be inside
batching    concurrent requests -> batches, one thread      model       a batch of jobs -> predictions and routing
service     what becomes of a request                       app         routes, OpenAPI, headers; page.html
loading     a checkpoint -> what is served                  server      socket, uvicorn, signals
"""
