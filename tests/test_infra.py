"""The deployment against the code: settings, roles, names, parameters, the hook that looks at the result."""

import itertools
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from shared.configuration import read_settings
from shared.problems import PROBLEMS
from shared.settings import ClientManagedIdentity, StorageConnection, VaultSecret
from tests.test_repository import ROOT, settings_in, settings_in_code

INFRA = ROOT / "infra"
MAIN = (INFRA / "main.bicep").read_text(encoding="utf-8")
APP = (INFRA / "app.bicep").read_text(encoding="utf-8")
STORAGE = (INFRA / "storage.bicep").read_text(encoding="utf-8")
TOLD = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
BICEP = {path.name: path.read_text(encoding="utf-8") for path in INFRA.glob("*.bicep")}

# learn.microsoft.com/azure/role-based-access-control/built-in-roles
ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "storageBlobDataOwner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "storageBlobDataContributor",
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "storageBlobDataReader",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "keyVaultSecretsOfficer",
    "3913510d-42f4-4e42-8a64-420c390055eb": "monitoringMetricsPublisher",
    "73c42c96-874c-492b-b04d-ab87d138a893": "logAnalyticsReader",
}
# learn.microsoft.com/azure/azure-functions/functions-app-settings, "Flex Consumption plan deprecations"
FORBIDDEN = {
    "FUNCTIONS_MAX_HTTP_CONCURRENCY",
    "WEBSITE_CONTENTOVERVNET",
    "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT",
    "WEBSITE_VNET_ROUTE_ALL",
    "ENABLE_ORYX_BUILD",
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_PROCESS_COUNT",
    "FUNCTIONS_WORKER_RUNTIME",
    "FUNCTIONS_WORKER_RUNTIME_VERSION",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "TZ",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_TIME_ZONE",
    "WEBSITE_USE_PLACEHOLDER",
}
TENANT_ID, CLIENT_ID = "8f1c5b1e-0d3f-4f5e-8a53-2d1c6b0e8a47", "1c5b1e8f-0d3f-4f5e-8a53-2d1c6b0e8a47"
VALUES = {
    "host.properties.primaryEndpoints.blob": "https://sthost.blob.core.windows.net/",
    "host.properties.primaryEndpoints.queue": "https://sthost.queue.core.windows.net/",
    "host.properties.primaryEndpoints.table": "https://sthost.table.core.windows.net/",
    "identity.properties.clientId": "5b0c4c8e-7f1d-4f0a-9a53-2d1c6b0e8a47",
    "insights.properties.ConnectionString": "InstrumentationKey=x",
    "partnerCenterCloud": "global",
    "partnerCenterTenantId": TENANT_ID,
    "partnerCenterClientId": CLIENT_ID,
    "recordBlobEndpoint": "https://strecord.blob.core.windows.net/",
    "refreshTokenAddress": "https://kv.vault.azure.net/secrets/partner-center-refresh-token",
    "snapshotSchedule": "0 5 * * * *",
}


def app_settings() -> dict[str, str]:
    """The app's settings as deployed, with values such as they get."""
    block = APP.split("name: 'appsettings'")[1].split("\n}\n")[0]
    settings = {}
    for name, value in re.findall(r"^    (\w+): (.+)$", block, re.MULTILINE):
        given = value.strip("'") if value.startswith("'") else "${" + value + "}"
        settings[name] = re.sub(r"\$\{([\w.]+)\}", lambda found: VALUES[found[1]], given)
    return settings


def test_the_app_starts_on_the_settings_that_it_is_deployed_with() -> None:
    deployed = app_settings()
    settings = read_settings(deployed, os.path.exists)

    identity, record = VALUES["identity.properties.clientId"], settings.record
    assert (settings.tenant_id, settings.client_id) == (TENANT_ID, CLIENT_ID)
    assert settings.client_authentication == ClientManagedIdentity(identity)
    assert settings.identity_client_id == identity
    assert settings.refresh_token == VaultSecret("https://kv.vault.azure.net", "partner-center-refresh-token")
    assert (record.snapshot_container, record.history_container) == ("usage", "usage-history")
    assert record.storage == StorageConnection(None, "https://strecord.blob.core.windows.net", identity)
    assert settings.cache_storage == StorageConnection(None, "https://sthost.blob.core.windows.net", identity)


def test_each_setting_is_one_of_the_code_and_none_is_forbidden_on_flex() -> None:
    deployed = app_settings().keys()

    assert settings_in(" ".join(deployed)) <= settings_in_code()
    assert "SNAPSHOT_SCHEDULE" in deployed  # a binding expression has no default
    assert not deployed & FORBIDDEN
    assert not re.search(r"alwaysOn|ftpsState|linuxFxVersion|functionAppScaleLimit|use32Bit|preWarmed", APP)
    others = deployed - settings_in(" ".join(deployed))
    identity = VALUES["identity.properties.clientId"]
    assert {name: app_settings()[name] for name in others} == {
        "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": f"ClientId={identity};Authorization=AAD",
        "APPLICATIONINSIGHTS_CONNECTION_STRING": VALUES["insights.properties.ConnectionString"],
        "AZURE_CLIENT_ID": identity,
        "AzureWebJobsStorage__blobServiceUri": VALUES["host.properties.primaryEndpoints.blob"],
        "AzureWebJobsStorage__clientId": identity,
        "AzureWebJobsStorage__credential": "managedidentity",
        "AzureWebJobsStorage__queueServiceUri": VALUES["host.properties.primaryEndpoints.queue"],
        "AzureWebJobsStorage__tableServiceUri": VALUES["host.properties.primaryEndpoints.table"],
    }


def test_no_secret_and_no_key_is_deployed() -> None:
    for text in BICEP.values():
        assert not re.search(
            r"listKeys|@secure|Microsoft\.KeyVault/vaults/secrets|_CLIENT_SECRET|AccountKey", text
        )


def test_no_parameter_and_no_output_has_a_name_that_bicep_takes_for_a_secret() -> None:
    # learn.microsoft.com/azure/azure-resource-manager/bicep/linter-rule-secure-secrets-in-parameters, and
    # …/linter-rule-outputs-should-not-contain-secrets
    taken = r"^param \w*(?:password|pwd|secret|accountkey|acctkey)\w* |^output \w*password\w* "
    for text in BICEP.values():
        assert re.findall(taken, text, re.MULTILINE | re.IGNORECASE) == []


def test_every_role_is_the_one_that_it_is_called() -> None:
    for text in BICEP.values():
        for name, role in re.findall(r"var (\w+) = '([0-9a-f-]{36})'", text):
            assert ROLES[role] == name


OPERATOR, GROUP, IDENTITY = "0a1b2c3d-aaaa", "1b2c3d4e-bbbb", "2c3d4e5f-cccc"
"""The first letters of object ids."""


@dataclass(frozen=True)
class Assignment:
    """A role assignment that a deployment makes."""

    name: tuple[str, ...]  # what goes into guid(), which tells letters apart
    principal: str
    role: str
    scope: str
    kind: str


def assignments(operator: str = OPERATOR, reader: str = GROUP) -> list[Assignment]:
    """The role assignments that roles.bicep makes of these parameters."""
    text = BICEP["roles.bicep"]
    scopes = re.findall(r"^resource (\w+) '[\w./@-]+' existing", text, re.MULTILINE)
    values: dict[str, Any] = {
        "toLower": str.lower,
        "empty": lambda text: not text,
        "union": lambda *lists: list(dict.fromkeys(itertools.chain(*lists))),
        "guid": lambda *parts: parts,
        "appPrincipalId": IDENTITY,
        "operatorPrincipalId": operator,
        "operatorPrincipalType": "User",
        "reportReaderGroupId": reader,
        **{scope: SimpleNamespace(id=f"/Subscriptions/{scope}") for scope in scopes},
    }

    def value(expression: str, **more: str) -> Any:  # noqa: ANN401  # any value
        chosen = re.sub(r"([^,]+) \? (\S+) : ([^\s)]+)", r"(\2 if \1 else \3)", expression)
        return eval(chosen, {"__builtins__": {}}, values | more)  # noqa: S307  # the template's own text

    for name, expression in re.findall(r"^var (\w+) = (.+)$", text, re.MULTILINE):
        values[name] = value(expression)
    made = []
    pattern = r"^resource \w+ 'Microsoft\.Authorization/roleAssignments@[\d-]+' = (.*?)^[\]}]"
    for body in re.findall(pattern, text, re.MULTILINE | re.DOTALL):
        loop = re.match(r"\[\s+for (\w+) in (\w+): \{\n", body)
        assert loop or body.startswith("{\n")
        given = dict(re.findall(r"^ +(\w+): (.+)$", body, re.MULTILINE))
        role = re.fullmatch(
            r"subscriptionResourceId\('Microsoft.Authorization/roleDefinitions', (\w+)\)",
            given["roleDefinitionId"],
        )
        assert role is not None
        for each in values[loop[2]] if loop else [""]:
            more = {loop[1]: each} if loop else {}
            name, principal, kind = (
                value(given[key], **more) for key in ("name", "principalId", "principalType")
            )
            made.append(Assignment(name, principal, ROLES[values[role[1]]], given["scope"], kind))
    return made


def test_roles_are_given_at_the_narrowest_scope() -> None:
    assert [name for name, text in BICEP.items() if "roleAssignments" in text] == ["roles.bicep"]
    assert {(each.principal, each.role, each.scope, each.kind) for each in assignments()} == {
        (OPERATOR, "logAnalyticsReader", "workspace", "User"),
        (IDENTITY, "monitoringMetricsPublisher", "insights", "ServicePrincipal"),
        (IDENTITY, "keyVaultSecretsOfficer", "vault", "ServicePrincipal"),
        (OPERATOR, "keyVaultSecretsOfficer", "vault", "User"),
        (IDENTITY, "storageBlobDataOwner", "host", "ServicePrincipal"),
        (IDENTITY, "storageBlobDataContributor", "usage", "ServicePrincipal"),
        (IDENTITY, "storageBlobDataContributor", "history", "ServicePrincipal"),
        (OPERATOR, "storageBlobDataReader", "usage", "User"),
        (OPERATOR, "storageBlobDataReader", "history", "User"),
        (GROUP, "storageBlobDataReader", "history", "Group"),
    }


@pytest.mark.parametrize(
    ("operator", "reader", "number"),
    [
        (OPERATOR, GROUP, 10),
        (OPERATOR, "", 9),
        (OPERATOR, OPERATOR, 9),
        (OPERATOR, OPERATOR.upper(), 9),
        (OPERATOR.upper(), OPERATOR, 9),
        (OPERATOR.upper(), GROUP.upper(), 10),
        (IDENTITY, "", 8),
        (IDENTITY.upper(), IDENTITY, 8),
        (OPERATOR, IDENTITY, 10),
    ],
)
def test_no_role_is_assigned_twice_whatever_principals_are_given(
    operator: str, reader: str, number: int
) -> None:
    made = assignments(operator, reader)

    assert len({(each.principal.lower(), each.role, each.scope) for each in made}) == len(made) == number
    assert len({each.name for each in made}) == number


def test_an_assignment_has_the_name_that_others_give_it_so_that_it_is_the_same_one() -> None:
    ids = {name: role for role, name in ROLES.items()}
    for each in assignments(OPERATOR.upper(), GROUP.upper()):
        assert each.name == (f"/subscriptions/{each.scope}", each.principal.lower(), ids[each.role])


def test_no_page_tells_to_give_by_hand_a_role_that_the_template_gives() -> None:
    report = (ROOT / "powerbi" / "README.md").read_text(encoding="utf-8")
    for page in (TOLD, report, *(path.read_text(encoding="utf-8") for path in ROOT.glob("*.md"))):
        assert "az role assignment create" not in page
    for page in (TOLD, report):
        assert "REPORT_READER_GROUP_ID" in page
        assert "RoleAssignmentExists" in page


def test_the_one_policy_of_the_record_archives_nothing_and_the_runbook_says_that_it_is_the_only_one() -> None:
    policies = re.findall(r"managementPolicies@[\d-]+' = \{\n  parent: (\w+)\n  name: '(\w+)'", STORAGE)

    assert policies == [("record", "default")]
    assert not re.search("tierTo|baseBlob", STORAGE)
    assert "\n**Lifecycle rules.** " in TOLD


def test_each_container_is_where_the_code_looks_for_it() -> None:
    pattern = r"containers@[\d-]+' = \{\n  parent: (\w+)\n  name: '([\w-]+)'"
    containers = {name: parent for parent, name in re.findall(pattern, STORAGE)}

    assert containers == {
        "deployments": "hostBlobs",
        "usage-cache": "hostBlobs",
        "usage": "recordBlobs",
        "usage-history": "recordBlobs",
    }


REQUIRED = {
    "storage.bicep": {
        "allowBlobPublicAccess: false": 2,
        "allowSharedKeyAccess: false": 2,
        "minimumTlsVersion: 'TLS1_2'": 2,
        "isVersioningEnabled: true": 1,
        "enabled: true\n      days: 30": 2,
        "prefixMatch: [\n                'usage-history/'\n              ]": 1,
        "actions: {\n              version: {\n                delete: {": 1,
        "daysAfterCreationGreaterThan: 90": 1,
        "name: recordRedundancy": 1,
        "supportsHttpsTrafficOnly: true": 2,
        "= if (recordImmutableDays > 0) {\n  parent: usage\n": 1,
    },
    "app.bicep": {
        "name: 'FC1'": 1,
        "maximumInstanceCount: 40": 1,
        "perInstanceConcurrency: 100": 1,
        "reserved: true": 1,
        "type: 'UserAssigned'\n    userAssignedIdentities: {\n      '${identity.id}': {}": 1,
        "value: '${host.properties.primaryEndpoints.blob}deployments'": 1,
        "name: 'python'\n        version: '3.13'": 1,
        "'azd-service-name': 'app'": 1,
        "allow: false": 2,
        "httpsOnly: true": 1,
        "authentication: {\n            type: 'UserAssignedIdentity'": 1,
    },
    "vault.bicep": {
        "enableRbacAuthorization: true": 1,
        "defaultAction: 'Allow'": 1,
        "enablePurgeProtection: true": 1,
        "enableSoftDelete: true": 1,
        "softDeleteRetentionInDays: 90": 1,
        "categoryGroup: 'audit'\n        enabled: true": 1,
    },
    "monitoring.bicep": {
        "disableLocalAuth: true": 1,
        "DisableLocalAuth: true": 1,
        "WorkspaceResourceId: workspace.id": 1,
        "retentionInDays: 90": 1,
    },
    "alerts.bicep": {
        "emailAddress: alertEmail": 1,
        "empty(alertEmail) ? [] : [byMail.id],\n  empty(alertActionGroupId) ? [] : [alertActionGroupId]\n": 1,
        "enabled: true": 2,
        "timeAggregation: 'Total'": 1,
        "actionGroups: actionGroups": 1,
        "minFailingPeriodsToAlert: 1": 1,
        "scopes: [\n        workspace.id\n      ]": 1,
    },
    "main.bicep": {
        "empty(operatorPrincipalId) ? deployer().objectId : operatorPrincipalId": 1,
        "blob.${environment().suffixes.storage}/": 1,
    },
}
"""What neither a checker of types nor one of rules looks at, and how often it has to be there."""


@pytest.mark.parametrize("file", sorted(REQUIRED))
def test_what_makes_it_safe_is_there(file: str) -> None:
    counts = {text: BICEP[file].count(text) for text in REQUIRED[file]}

    assert counts == REQUIRED[file]


def test_azd_finds_the_app_and_looks_at_the_result() -> None:
    azure = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))

    assert azure.keys() == {"name", "metadata", "requiredVersions", "services", "hooks"}
    app = azure["services"]["app"]
    assert app.keys() == {"project", "language", "host", "remoteBuild", "dist", "hooks"}
    assert (app["project"], app["language"], app["host"]) == (".", "python", "function")
    assert app["hooks"].keys() == {"prepackage"}
    assert azure["hooks"] == {
        "postdeploy": {
            "posix": {"shell": "sh", "run": "infra/check-deployment.sh"},
            "windows": {"shell": "pwsh", "run": "infra/check-deployment.ps1"},
        }
    }
    assert os.access(ROOT / "infra" / "check-deployment.sh", os.X_OK)
    assert (ROOT / "infra" / "check-deployment.ps1").is_file()


def test_callers_need_a_key() -> None:
    function = json.loads((ROOT / "GetUsageSummary" / "function.json").read_text(encoding="utf-8"))

    assert [binding.get("authLevel") for binding in function["bindings"]] == ["function", None]


def test_no_event_is_lost_on_its_way_and_a_run_has_the_time_that_it_may_need() -> None:
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))

    assert host["logging"] == {  # with the host's own levels: Information
        "applicationInsights": {
            "samplingSettings": {"isEnabled": True, "excludedTypes": "Request;Trace;Exception"}
        }
    }
    assert host["functionTimeout"] == "00:10:00"


def test_the_record_cannot_be_deleted_with_the_rest() -> None:
    lock = STORAGE.split("resource lock ")[1].split("\n}\n")[0]

    assert "scope: record" in lock
    assert "level: 'CanNotDelete'" in lock


def test_the_parameters_are_those_of_the_template_and_each_is_told_of() -> None:
    given = json.loads((INFRA / "main.parameters.json").read_text(encoding="utf-8"))["parameters"]
    declared = re.findall(r"^param (\w+) ", MAIN, re.MULTILINE)
    values = {name: each["value"] for name, each in given.items()}
    names = {name: value.strip("${}").split("=")[0] for name, value in values.items()}
    usual = {name: value.strip("${}").partition("=")[2] for name, value in values.items()}

    assert list(given) == declared
    of_azd = {"environmentName": "AZURE_ENV_NAME", "location": "AZURE_LOCATION"}
    assert names == {name: of_azd.get(name, re.sub("([A-Z])", r"_\1", name).upper()) for name in declared}
    assert {name for name in names.values() if name not in TOLD} <= set(of_azd.values())
    defaults = dict(re.findall(r"^param (\w+) \w+ = '?(.*?)'?$", MAIN, re.MULTILINE))
    assert {name: value for name, value in usual.items() if value} == {
        name: value for name, value in defaults.items() if value
    }
    assert {name: value for name, value in defaults.items() if value} == {
        "partnerCenterCloud": "global",
        "snapshotSchedule": "0 5 * * * *",
        "recordRedundancy": "Standard_ZRS",
        "recordImmutableDays": "0",
        "operatorPrincipalType": "User",
        "refreshTokenAlertDays": "30",
    }


def test_the_outputs_are_what_the_commands_of_operators_take() -> None:
    assert dict(re.findall(r"^output (\w+) string = (.+)$", MAIN, re.MULTILINE)) == {
        "AZURE_LOCATION": "location",
        "AZURE_RESOURCE_GROUP": "group.name",
        "APP_NAME": "appName",
        "APP_HOST_NAME": "app.outputs.hostName",
        "HOST_STORAGE_NAME": "hostStorageName",
        "HISTORY_URL": "'${recordBlobEndpoint}usage-history/usagesummary.ndjson'",
        "IDENTITY_CLIENT_ID": "identity.outputs.clientId",
        "IDENTITY_PRINCIPAL_ID": "identity.outputs.principalId",
        "PARTNER_CENTER_CLOUD": "partnerCenterCloud",
        "PARTNER_CENTER_CLIENT_ID": "partnerCenterClientId",
        "PARTNER_CENTER_TENANT_ID": "partnerCenterTenantId",
        "RECORD_BLOB_ENDPOINT": "recordBlobEndpoint",
        "REFRESH_TOKEN_SECRET": "refreshTokenAddress",
        "VAULT_NAME": "vaultName",
        "WORKSPACE_ID": "monitoring.outputs.customerId",
    }


def test_every_alert_and_every_problem_has_a_section_that_says_what_it_means_and_what_to_do() -> None:
    codes = {problem.code for problem in PROBLEMS.values()} | {"no-usage-data", "precondition-failed"}
    alerts = {path.stem for path in (INFRA / "alerts").iterdir()}
    _, *parts = re.split(r"^### ", re.sub(r"^## .*", "### end", TOLD, flags=re.MULTILINE), flags=re.MULTILINE)
    sections = dict(part.split("\n", 1) for part in parts)

    for name in codes | alerts:
        assert "**Means**: " in sections[name]
        assert "**Do**: " in sections[name] or "**See** and **do**: " in sections[name]
        assert name in codes or "**Time**: " in sections[name]
        assert "**See**" in sections[name] or "```kusto\nevents | where what " in sections[name]


def modules() -> dict[str, tuple[str, dict[str, str]]]:
    """The modules of main.bicep: their files and what they are given."""
    pattern = r"^module (\w+) '(\w+\.bicep)' = \{(.*?)^\}"
    return {
        name: (file, dict(re.findall(r"^    (\w+): (.+)$", body.split("params: {")[1], re.MULTILINE)))
        for name, file, body in re.findall(pattern, MAIN, re.MULTILINE | re.DOTALL)
    }


def test_every_module_gets_what_it_declares_by_the_same_name() -> None:
    assert {file for file, _ in modules().values()} == BICEP.keys() - {"main.bicep"}
    others = dict[tuple[str, str], str]()
    for module, (file, given) in modules().items():
        assert list(given) == re.findall(r"^param (\w+) ", BICEP[file], re.MULTILINE), module
        others |= {(module, name): value for name, value in given.items() if value != name}
    assert others == {
        ("identity", "name"): "identityName",
        ("vault", "name"): "vaultName",
        ("roles", "appPrincipalId"): "identity.outputs.principalId",
        ("roles", "operatorPrincipalId"): "operator",
        ("app", "name"): "appName",
        ("app", "planName"): "'plan-usage-summary-${token}'",
    }


def test_a_preview_shows_all_but_the_roles_since_no_other_module_waits_for_an_output() -> None:
    waiting = {module for module, (_, given) in modules().items() if ".outputs." in " ".join(given.values())}

    assert waiting == {"roles"}


def waits_for(module: str) -> set[str]:
    """The modules that are done before this one begins."""
    body = MAIN.split(f"\nmodule {module} ")[1].split("\n}\n")[0]
    listed = re.search(r"dependsOn: \[(.*?)\]", body, re.DOTALL)
    direct = {*re.findall(r"(\w+)\.outputs", body), *(listed[1].split() if listed else [])}
    return direct.union(*map(waits_for, direct))


def test_what_a_module_takes_as_existing_was_made_by_one_that_it_waits_for() -> None:
    pattern = r"^resource (\w+) '([\w./]+)@[\w-]+' (=|existing)"
    makers, takers = set[tuple[str, str, str]](), set[tuple[str, str, str]]()
    for module, (file, _) in modules().items():
        for name, kind, how in re.findall(pattern, BICEP[file], re.MULTILINE):
            (makers if how == "=" else takers).add((module, name, kind))

    assert len(takers) == 13
    for module, *taken in takers:
        assert {maker for maker, *made in makers if made == taken} & waits_for(module), taken


def check_deployment(place: Path, **stand_ins: str) -> subprocess.CompletedProcess[str]:
    """The hook after a deployment, with these shell scripts in place of commands."""
    for name, script in stand_ins.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (place / name).chmod(0o755)
    environ = {
        "PATH": f"{place}:{os.environ['PATH']}",
        "AZURE_RESOURCE_GROUP": "rg",
        "AZURE_SUBSCRIPTION_ID": "subscription",
        "APP_NAME": "app",
        "APP_HOST_NAME": "app.example",
        "CHECK_DEPLOYMENT_SECONDS": "0",
    }
    command = ["/bin/sh", "infra/check-deployment.sh"]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_who_is_not_signed_in_to_az_hears_that_and_nothing_of_functions(tmp_path: Path) -> None:
    done = check_deployment(tmp_path, az="echo 'Please run az login' >&2\nexit 1")

    assert (done.returncode, done.stderr) == (1, "Please run az login\n")


@pytest.mark.parametrize(
    ("functions", "status", "code"),
    [
        ("app/GetUsageSummary app/SnapshotTimer", "401", 0),
        ("app/SnapshotTimer app/GetUsageSummary", "401", 0),
        ("app/GetUsageSummary", "401", 1),
        ("", "404", 1),
        ("app/GetUsageSummary app/SnapshotTimer", "200", 1),
        ("app/GetUsageSummary app/SnapshotTimer", "000", 1),
    ],
)
def test_a_deployment_is_good_only_with_both_functions_and_a_refusal(
    tmp_path: Path, functions: str, status: str, code: int
) -> None:
    done = check_deployment(tmp_path, az=f"printf '%s' '{functions}'", curl=f"printf '%s' '{status}'")

    assert done.returncode == code
    assert ("not complete" in done.stderr) == bool(code)
    assert ("functions: none;" in done.stderr) == (not functions)


def test_both_scripts_ask_for_the_same_address_and_say_the_same() -> None:
    sh, ps1 = ((INFRA / f"check-deployment.{kind}").read_text(encoding="utf-8") for kind in ("sh", "ps1"))
    route = json.loads((ROOT / "GetUsageSummary" / "function.json").read_text(encoding="utf-8"))["bindings"][
        0
    ]

    assert f"https://$APP_HOST_NAME/{route['route']}" in sh
    assert f"https://$($env:APP_HOST_NAME)/{route['route']}" in ps1
    none = "$(if ($functions) { $functions } else { 'none' })"
    messages = re.findall(r"(?:the deployment is|GetUsageSummary and)[^\n\"']+", sh)
    assert len(messages) == 2
    for said in messages:
        assert said.replace("${functions:-none}", none) in ps1
