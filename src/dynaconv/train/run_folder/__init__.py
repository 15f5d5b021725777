"""The output folder of a run: lock, checkpoints, weights, logs; what a stopped run goes on from.

:mod:`~dynaconv.train.run_folder.folder` says what lies where.
"""
