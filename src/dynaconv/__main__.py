"""The command ``dynaconv``, also as ``python -m dynaconv``; says in one line which extra is missing."""

from __future__ import annotations

import sys

EXTRA_OF_MODULE = {
    "PIL": "train",
    "accelerate": "train",
    "huggingface_hub": "train",
    "matplotlib": "train",
    "numpy": "train",
    "pydantic": "train",
    "rich": "train",
    "safetensors": "train",
    "scipy": "train",
    "sklearn": "train",
    "tensorboard": "train",
    "timm": "train",
    "torchmetrics": "train",
    "torchvision": "train",
    "typer": "train",
    "datasets": "data",
    "faster_coco_eval": "detection",
    "pyarrow": "inspect",
    "wandb": "wandb",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "export",
    "fastapi": "serve",
    "prometheus_client": "serve",
    "python_multipart": "serve",
    "uvicorn": "serve",
}


def main() -> int:
    """Run the command line and return its exit code; 2 when the command needs an extra that is not installed."""
    try:
        from dynaconv import cli

        return cli.main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = EXTRA_OF_MODULE.get(package)
        if extra is None:
            raise
        sys.stderr.write(f"dynaconv: {package} is not installed and this needs it; pip install 'dynaconv[{extra}]'\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
