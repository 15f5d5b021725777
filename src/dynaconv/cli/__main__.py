"""``python -m dynaconv.cli`` (and ``torchrun -m dynaconv.cli``) is the ``dynaconv`` command."""

from . import main

if __name__ == "__main__":
    raise SystemExit(main())
