"""``python -m dynaconv``: the same command as ``dynaconv``."""

from dynaconv.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
