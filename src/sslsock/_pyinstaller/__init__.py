"""Where PyInstaller finds the hook: the entry point `pyinstaller40` of the package names `hook_folders`."""

import os


def hook_folders() -> list[str]:
    """For PyInstaller: folders with hooks."""
    return [os.path.dirname(__file__)]
