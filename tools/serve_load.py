"""Load `dynaconv serve`: throughput and latency of concurrent clients, with and without batches.

    python tools/serve_load.py [CHECKPOINT] --clients 1,4,16 --seconds 10

Two services run at the same time, one with batches (the defaults) and one without (`--max-batch 1`), and are asked in
turns, so that both see the same machine. Every client sends its next request when it has the last response. Prints, for
every number of clients, requests per second, the median and the 99th percentile of the latency, and the mean batch.
Without a checkpoint it makes one of --model with random weights. The clients take processor time too: on few cores the
figures are those of service and clients together.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

FORMS = {"batched": [], "unbatched": ["--max-batch", "1"]}


class Load(NamedTuple):
    """One measurement: latencies in seconds, of so many seconds; images and batches of the network in that time."""

    latencies: list[float]
    seconds: float
    images: float
    batches: float


def main(words: list[str] | None = None) -> int:
    """Return the exit code: 0; 1 if a request was not served."""
    options = _options(words)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or _write_checkpoint(Path(folder) / "best.safetensors", options)
        services = {name: _start(checkpoint, [*extra, *options.serve]) for name, extra in FORMS.items()}
        try:
            rows = _measure({name: port for name, (_, port) in services.items()}, options)
        finally:
            for process, _ in services.values():
                process.terminate()
            codes = [process.wait(60) for process, _ in services.values()]
    print(json.dumps(rows, indent=2) if options.json else _table(rows))
    return int(any(codes))


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--model", default="dy_mobilenetv2_050")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--clients", default="1,4,16", help="numbers of clients, with commas between them")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of every service, in turns")
    parser.add_argument("--serve", action="append", default=[], help="an option of dynaconv serve, such as --threads=2")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def _write_checkpoint(path: Path, options: argparse.Namespace) -> Path:
    from dynaconv.tasks import task_class
    from dynaconv.train.run_folder.weights import save_weights

    about = {
        "task": "classification",
        "model": {"name": options.model},
        "classes": [f"class {number}" for number in range(1000)],
        "preprocess": {"image_size": options.image_size, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    _, network = task_class("classification").of_weights(about)
    save_weights(path, network, about)
    return path


def _start(checkpoint: Path, extra: list[str]) -> tuple[subprocess.Popen[str], int]:
    """A service that is ready, and its port."""
    words = ["serve", str(checkpoint), "--port", "0", *extra]
    process = subprocess.Popen([sys.executable, "-m", "dynaconv", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"serving at http://[\d.]+:(\d+)", line):
            port = int(found[1])
            break
    else:
        raise SystemExit("the service did not start; its message is above")
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)
            return process, port
        except OSError:
            time.sleep(0.1)


def _request() -> bytes:
    """A JPEG of 500 x 375 pixels, as those of ImageNet are, in a form."""
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((50, 37), 80).convert("RGB").resize((500, 375), Image.Resampling.BICUBIC).save(file, "jpeg")
    head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'
    body = head + file.getvalue() + b"\r\n--b--\r\n"
    start = "POST /predict HTTP/1.1\r\nHost: load\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _client(port: int, request: bytes, until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (start := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert head.startswith(b"HTTP/1.1 200"), head
        assert length is not None
        await reader.readexactly(int(length[1]))
        latencies.append(time.perf_counter() - start)
    writer.close()
    await writer.wait_closed()


def _load(port: int, clients: int, seconds: float) -> Load:
    before, latencies, start = _figures(port), [], time.perf_counter()
    request = _request()

    async def every() -> None:
        await asyncio.gather(*(_client(port, request, start + seconds, latencies) for _ in range(clients)))

    asyncio.run(every())
    took, after = time.perf_counter() - start, _figures(port)
    return Load(latencies, took, after[0] - before[0], after[1] - before[1])


def _figures(port: int) -> tuple[float, float]:
    """Images and batches so far."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    found = [
        re.search(rf"^dynaconv_{name} (\S+)$", text, re.MULTILINE) for name in ("images_total", "batch_images_count")
    ]
    images, batches = (float(one[1]) if one else 0.0 for one in found)
    return images, batches


def _measure(ports: dict[str, int], options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for clients in map(int, options.clients.split(",")):
        loads: dict[str, list[Load]] = {name: [] for name in ports}
        for number in range(options.rounds + 1):
            for name, port in ports.items():
                load = _load(port, clients, options.seconds if number else min(1.0, options.seconds))
                if number:  # the first round warms up
                    loads[name].append(load)
        rows += [{"clients": clients, "form": name, **_summary(found)} for name, found in loads.items()]
    return rows


def _summary(loads: list[Load]) -> dict[str, float]:
    latencies = sorted(1000 * latency for load in loads for latency in load.latencies)
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    return {
        "per_second": round(statistics.median(len(load.latencies) / load.seconds for load in loads), 1),
        "p50_ms": round(percentiles[49], 1),
        "p99_ms": round(percentiles[98], 1),
        "mean_batch": round(sum(load.images for load in loads) / max(1.0, sum(load.batches for load in loads)), 2),
        "requests": len(latencies),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| clients | | requests/s | p50, ms | p99, ms | mean batch |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        values = (row["clients"], row["form"], row["per_second"], row["p50_ms"], row["p99_ms"], row["mean_batch"])
        lines.append("| " + " | ".join(map(str, values)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
