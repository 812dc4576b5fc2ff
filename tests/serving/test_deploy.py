"""The files in deploy/ call the command line with options that it has."""

import json
import re

import yaml

from tests.commands import affekt
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"


def test_deployments_use_known_options():
    known = set(re.findall(r"--[\w-]+", affekt("serve", "--help").stdout))
    entry = json.loads(re.search(r"ENTRYPOINT (\[.*\])", (DEPLOY / "Dockerfile").read_text())[1])
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["affekt"]
    unit = re.search(r"ExecStart=\S+/affekt (.*)", (DEPLOY / "affekt.service").read_text())[1].split()
    assert entry[:2] == ["affekt", "serve"]
    assert unit[0] == "serve"
    for arguments in (entry, compose["command"], unit):
        used = {argument for argument in arguments if argument.startswith("--")}
        assert used
        assert used <= known
    source = set(re.findall(r"COPY (.*) /source", (DEPLOY / "Dockerfile").read_text())[0].split())
    assert all((ROOT / name).exists() for name in source)
