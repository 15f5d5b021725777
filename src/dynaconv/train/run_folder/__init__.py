"""The output folder of a run: lock, checkpoints, weights and logs. A stopped run continues from it.

:mod:`~dynaconv.train.run_folder.folder` documents its layout.
"""
