"""The command of the program, as tests call it."""

import subprocess
import sys

from tinyddpm.program import cli


def command(*arguments):
    return cli.main([str(a) for a in arguments])


def start(squares, out, *options):
    words = ["train", "--data", squares, "--out", out, "--steps", 100000, "--preset", "tiny", "--batch", 8, *options]
    return subprocess.Popen([sys.executable, "-m", "tinyddpm", *map(str, words)], stdout=subprocess.PIPE, text=True)
