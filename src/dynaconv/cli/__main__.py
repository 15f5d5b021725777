"""``python -m dynaconv.cli`` (and ``torchrun -m dynaconv.cli``) is the ``dynaconv`` command."""

from dynaconv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
