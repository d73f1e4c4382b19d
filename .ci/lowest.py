"""Prints pip constraints that select the oldest supported version of each dependency."""

import pathlib
import re
import tomllib

PYPROJECT = pathlib.Path(__file__).parent.parent / 'pyproject.toml'

for dependency in tomllib.loads(PYPROJECT.read_text())['project']['dependencies']:
    bound = re.fullmatch(r'([\w-]+)>=([\d.]+)', dependency)
    if bound is None:
        raise SystemExit(f'{dependency!r} in pyproject.toml must have the form name>=version.')
    print(f'{bound[1]}=={bound[2]}')
