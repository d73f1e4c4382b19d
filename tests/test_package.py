"""What is installed agrees with the source, and the oldest supported versions can be read off."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import gradzip

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def test_the_version_is_that_of_the_installed_package():
    assert re.fullmatch(r'\d+\.\d+\.\d+', gradzip.__version__)
    assert gradzip.__version__ == importlib.metadata.version('gradzip')


def test_every_dependency_has_a_lower_bound_that_ci_installs():
    """The workflow passes what this script prints to pip as constraints."""
    script = [sys.executable, ROOT / '.ci/lowest.py']
    shown = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    bounds = dict(line.split('==') for line in shown.split())
    assert [f'{name}>={version}' for name, version in bounds.items()] == PROJECT['dependencies']


def test_every_supported_python_has_a_classifier():
    """The oldest Python is named in the classifiers, by requires-python and by the workflow."""
    named = re.findall(r'Python :: (3\.\d+)', ' '.join(PROJECT['classifiers']))
    tested = re.findall(r"python: '(3\.\d+)'", (ROOT / '.github/workflows/ci.yml').read_text())
    assert PROJECT['requires-python'] == f'>={named[0]}'
    assert {named[0], named[-1]} == set(tested)
