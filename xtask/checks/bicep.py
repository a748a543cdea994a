"""Parses a Bicep template and writes the Talkline configuration that it makes, with sample values.

bicep.py TEMPLATE OUT
"""

import pathlib
import re
import sys

import pycep

SAMPLES = {
    "origins": '"https://talk.example.com"',
    "openAi.properties.endpoint": "https://contoso.openai.azure.com/",
    "deploymentName": "gpt-realtime",
    "identity.properties.clientId": "11111111-2222-3333-4444-555555555555",
    "sessionsMax": "300",
}
# By what the template promises: the role, the identity, the bound of the platform.
PROMISES = [
    "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd",
    "userAssignedIdentities",
    "keyVaultUrl",
    "adminUserEnabled: false",
    "terminationGracePeriodSeconds: 600",
]


def main():
    template, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    parsed = pycep.BicepParser().parse(file_path=template)
    text = template.read_text()
    missing = [promise for promise in PROMISES if promise not in text]
    if missing:
        sys.exit(f"{template.name} has no {', '.join(missing)}")
    lines = re.search(r"var configuration = join\(\[\n(.*?)\n\], '\\n'\)", text, re.DOTALL)
    config = [line.strip().removeprefix("'").removesuffix("'") for line in lines[1].splitlines()]
    fill = lambda match: SAMPLES[match[1]]
    out.write_text("\n".join(re.sub(r"\$\{([^}]+)\}", fill, line) for line in config) + "\n")
    print(f"{template.name}: {len(parsed['resources'])} resources, {len(parsed['parameters'])} parameters")


main()
