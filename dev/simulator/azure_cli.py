"""A stand-in for the Azure CLI after `az login`: the one command that AzureCliCredential runs.

Arguments and answer are those of `az account get-access-token`: learn.microsoft.com/cli/azure/account.
"""

import sys
from pathlib import Path

_SCRIPT = """\
import argparse, json, ssl, sys, urllib.error, urllib.parse, urllib.request
from datetime import datetime

parser = argparse.ArgumentParser(prog="az", allow_abbrev=False)
parser.add_argument("command", nargs=2)
parser.add_argument("--output", "-o", choices=["json"], default="json")
what = parser.add_mutually_exclusive_group()
what.add_argument("--resource", default="https://management.core.windows.net/")
what.add_argument("--scope", nargs="+", default=[])
whose = parser.add_mutually_exclusive_group()
whose.add_argument("--tenant", "-t")
whose.add_argument("--subscription", "-s", "--name", "-n")
options = parser.parse_args()
if options.command != ["account", "get-access-token"]:
    parser.error("the simulator knows `az account get-access-token` only")
resource = options.scope[0].removesuffix("/.default") if options.scope else options.resource
query = {"resource": resource} | ({"tenant": options.tenant} if options.tenant else {})
request = urllib.request.Request(URL + "?" + urllib.parse.urlencode(query), b"", method="POST")
https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=CA_BUNDLE))
try:
    answer = json.load(urllib.request.build_opener(https).open(request, timeout=10))
except urllib.error.HTTPError as error:
    sys.exit("ERROR: " + json.load(error)["error"])
except urllib.error.URLError as error:
    sys.exit("ERROR: the simulator does not answer: " + str(error.reason))
expires = datetime.fromtimestamp(answer["expires_on"]).strftime("%Y-%m-%d %H:%M:%S.%f")
more = {"expiresOn": expires, "subscription": options.subscription or "", "tokenType": "Bearer"}
print(json.dumps(answer | more, indent=2))
"""


def install(directory: Path, url: str, ca_bundle: str) -> None:
    """Write an executable `az` that asks the simulator at this URL; for POSIX."""
    directory.mkdir(parents=True, exist_ok=True)
    az = directory / "az"
    address = f"{url}/simulator/operator-token"
    az.write_text(f"#!{sys.executable} -I\nURL = {address!r}\nCA_BUNDLE = {ca_bundle!r}\n{_SCRIPT}")
    az.chmod(0o755)
