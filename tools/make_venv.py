"""Make .venv with the pinned versions of requirements.txt; the Makefile runs this whenever the stamp is missing or old.

The stamp is written last and removed first: an environment without it was interrupted and is made anew, one with an
older stamp is whole and is brought up to date. Only the standard library is used, and nothing newer than Python 3.6
speaks before the version check, so that an old Python gets a sentence and not a syntax error.
"""

import os
import re
import subprocess
import sys
import time

VENV = ".venv"
STAMP = os.path.join(VENV, "installed")
PYTHON = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")
REQUIREMENTS = "requirements.txt"
SECONDS_BETWEEN_REPORTS = 10


def main():
    """Return the exit code: 0 the environment stands, 1 a step failed, 2 Python is too old, 130 interrupted."""
    if sys.version_info < (3, 10):
        came = ".".join(str(part) for part in sys.version_info[:3])
        say(f"dynaconv needs Python 3.10 or newer; {sys.executable} is {came}. Next: make PYTHON=python3.12 ...")
        return 2
    started = time.monotonic()
    try:
        prepare()
        install_pinned()
        run("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ".")
        run("pip", "check")
    except subprocess.CalledProcessError as error:
        say(f"making {VENV} failed (exit code {error.returncode}); the reason is above. The next make starts anew.")
        return 1
    except KeyboardInterrupt:
        say(f"interrupted; the next make starts {VENV} anew")
        return 130
    with open(STAMP, "w") as stamp:
        stamp.write(sys.version + "\n")
    say(f"{VENV} is ready after {time.monotonic() - started:.0f} s")
    return 0


def prepare():
    """Keep a whole environment of the same Python, make any other one anew; either way the stamp is gone after this."""
    whole = False
    if os.path.exists(STAMP):
        with open(STAMP) as stamp:
            whole = stamp.read().strip() == sys.version
        os.remove(STAMP)
    if not whole:
        say(f"making {VENV} with Python {sys.version.split()[0]}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)


def install_pinned():
    """Install every pinned package; tell every few seconds how far it is, for pip alone says too much or nothing."""
    with open(REQUIREMENTS) as file:
        lines = file.read().splitlines()
    # The pinned pip first: the one that Python brings may be years old, and takes twice as long.
    run("pip", "install", "--quiet", *(line for line in lines if line.startswith("pip==")))
    say(f"installing {REQUIREMENTS} (torch brings gigabytes; minutes when nothing is cached)")
    # The list is complete (`pip check` proves it), so nothing is resolved; modules are compiled when first imported.
    options = ["--no-deps", "--no-compile", "--disable-pip-version-check"]
    command = [PYTHON, "-m", "pip", "install", *options, "--requirement", REQUIREMENTS]
    reported = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as pip:
        for line in pip.stdout:
            where = re.search(r"\(line (\d+)\)", line)  # pip names the line of the file that it works on
            if line.startswith("Installing collected packages"):
                say("all is downloaded; unpacking, about a minute")
            elif where and time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
                reported = time.monotonic()
                say(f"downloading: at line {where.group(1)} of {len(lines)}")
    if pip.returncode:
        raise subprocess.CalledProcessError(pip.returncode, command)


def run(*module, **options):
    """Run ``python -m <module ...>`` of the environment; a failure raises."""
    subprocess.run([PYTHON, "-m", *module], check=True, stdin=subprocess.DEVNULL, **options)


def say(text):
    """Print one line now."""
    print("[.venv] " + text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
