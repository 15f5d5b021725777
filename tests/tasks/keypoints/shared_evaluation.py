"""One evaluation shared by two processes, for the tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import distributed, nn


class Bright(nn.Module):
    """Heat maps from colours: enough to have poses that differ from crop to crop."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.avg_pool2d(images, 4)
        return torch.cat([pooled, pooled.mean(dim=1, keepdim=True)], dim=1)


def evaluate(data: str, process: int, processes: int, meeting: str, out: str) -> None:
    """Write this process's metrics, and how many examples it saw, to a file."""
    from dynaconv.tasks.keypoints import KeypointOptions, open_data

    torch.set_num_threads(1)
    if processes > 1:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=process, world_size=processes)
    opened = open_data(data, image_size=64, eval_batch_size=2, sigmas=0.2)
    metrics = opened.task(KeypointOptions(), 2).metrics("cpu")
    seen = 0
    for batch in opened.evaluation_batches(processes=processes, process=process):
        seen += len(batch["rows"])
        metrics.update(Bright(), batch)
    found = metrics.compute()
    Path(out).write_text(json.dumps({"seen": seen, **found}))
    if processes > 1:
        distributed.destroy_process_group()
