"""What the settings' table promises: defaults, limits, alternatives, and errors that name everything."""

import re
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clouds import CLOUDS
from shared.configuration import read_partner_center_settings, read_record_settings, read_settings
from shared.errors import ConfigurationError
from shared.settings import (
    ClientCertificate,
    ClientManagedIdentity,
    ClientSecret,
    Freshness,
    GivenRefreshToken,
    RecordSettings,
    Settings,
    StorageConnection,
    VaultSecret,
    is_on_this_machine,
)
from tests.conftest import FIELD

CANARY = "canary-8Q~deadbeef"
GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_GUID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
HOST_ACCOUNT = f"DefaultEndpointsProtocol=https;AccountName=host;SharedAccessSignature={CANARY}"
RECORD_ACCOUNT = f"DefaultEndpointsProtocol=https;AccountName=record;SharedAccessSignature={CANARY}"
GLOBAL_API = "https://api.partnercenter.microsoft.com"

GOOD = {
    "PARTNER_CENTER_TENANT_ID": GUID,
    "PARTNER_CENTER_CLIENT_ID": OTHER_GUID,
    "PARTNER_CENTER_CLIENT_SECRET": CANARY,
    "PARTNER_CENTER_REFRESH_TOKEN_SECRET": "https://a-vault.vault.azure.net/secrets/refresh-token",
    "AzureWebJobsStorage": HOST_ACCOUNT,
}
SECONDS = [
    ("USAGE_CACHE_FRESH_SECONDS", "fresh", 1),
    ("USAGE_CACHE_STALE_WHILE_REVALIDATE_SECONDS", "stale_while_revalidate", 0),
    ("USAGE_CACHE_STALE_IF_ERROR_SECONDS", "stale_if_error", 0),
    ("USAGE_CACHE_MIN_REFRESH_SECONDS", "min_refresh", 1),
]
DURATIONS = [name for name, _, _ in SECONDS]
CONTAINERS = ["USAGE_CACHE_CONTAINER", "USAGE_SNAPSHOT_CONTAINER", "USAGE_HISTORY_CONTAINER"]
MAY_BE_WRONG = [
    "PARTNER_CENTER_CLOUD",
    "PARTNER_CENTER_BASE_URL",
    "PARTNER_CENTER_AUTHORITY",
    "PARTNER_CENTER_TENANT_ID",
    "PARTNER_CENTER_CLIENT_ID",
    "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY",
    "PARTNER_CENTER_REFRESH_TOKEN_SECRET",
    "USAGE_STORAGE",
    *CONTAINERS,
    *DURATIONS,
]
CLOUD, BASE_URL, AUTHORITY = "PARTNER_CENTER_CLOUD", "PARTNER_CENTER_BASE_URL", "PARTNER_CENTER_AUTHORITY"
VAULT = "PARTNER_CENTER_REFRESH_TOKEN_SECRET"


def read(**changed: str) -> Settings:
    return read_settings(GOOD | changed)


def complaint(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(environ)
    assert CANARY not in str(caught.value) + repr(caught.value) + caught.value.message
    return caught.value.message


def named(message: str) -> set[str]:
    return set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", message))


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = read()
    assert settings.cloud == CLOUDS["global"]
    assert (settings.tenant_id, settings.client_id) == (GUID, OTHER_GUID)
    hour, day, minute = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
    assert settings.freshness == Freshness(hour, hour, stale_if_error=day, min_refresh=minute)
    containers = (
        settings.cache_container,
        settings.record.snapshot_container,
        settings.record.history_container,
    )
    assert containers == ("usage-cache", "usage", "usage-history")
    assert settings.identity_client_id is None
    assert settings.ca_bundle is None


def test_all_missing_settings_are_named_at_once() -> None:
    message = complaint({})
    alternatives = "CLIENT_SECRET", "CLIENT_CERTIFICATE_PATH", "CLIENT_MANAGED_IDENTITY", "REFRESH_TOKEN"
    required = "TENANT_ID", "CLIENT_ID", *alternatives, "REFRESH_TOKEN_SECRET"
    assert named(message) >= {f"PARTNER_CENTER_{name}" for name in required} | {"USAGE_STORAGE"}
    assert "AzureWebJobsStorage" in message


def test_all_wrong_settings_are_named_at_once() -> None:
    assert named(complaint(dict.fromkeys(MAY_BE_WRONG, CANARY))) >= set(MAY_BE_WRONG)


@pytest.mark.parametrize("name", MAY_BE_WRONG)
def test_a_wrong_setting_is_named_alone(name: str) -> None:
    others = {"PARTNER_CENTER_CLIENT_SECRET": ""} if name.endswith("MANAGED_IDENTITY") else {}
    assert named(complaint(GOOD | others | {name: CANARY})) == {name}


ADDRESS = "an https address without user, query or fragment"
CONTAINER = "a container's name: 3 to 63 lower-case letters, digits and single hyphens"
CONNECTION = "a storage connection string with an account and its key, or a signature"
SECRET, CERTIFICATE = "PARTNER_CENTER_CLIENT_SECRET", "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH"
IDENTITY, TOKEN = "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY", "PARTNER_CENTER_REFRESH_TOKEN"
ONE_CLIENT = f"exactly one of {SECRET}, {CERTIFICATE}, {IDENTITY} must be set"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"PARTNER_CENTER_TENANT_ID": "x y"},
            "PARTNER_CENTER_TENANT_ID is wrong: the partner's tenant: a GUID or a domain name",
        ),
        (
            {"PARTNER_CENTER_CLIENT_ID": ""},
            "PARTNER_CENTER_CLIENT_ID is missing: the app registration's id: a GUID",
        ),
        ({CLOUD: "mars"}, f"{CLOUD} is wrong: global or usgov"),
        (
            {CLOUD: "germany"},
            (
                f"{CLOUD} germany is refused: Microsoft Cloud Germany was closed on 2021-10-29; "
                f"use global or usgov, or set both {BASE_URL} and {AUTHORITY}"
            ),
        ),
        ({BASE_URL: "x"}, f"{BASE_URL} is wrong: {ADDRESS}"),
        ({VAULT: "x"}, f"{VAULT} is wrong: {ADDRESS}"),
        (
            {VAULT: "https://v.vault.azure.net/keys/k"},
            f"{VAULT} is wrong: a secret's address without a version: https://<vault>/secrets/<name>",
        ),
        ({SECRET: "", IDENTITY: "x"}, f"{IDENTITY} is wrong: an identity's client id: a GUID"),
        ({SECRET: ""}, f"{ONE_CLIENT}: missing"),
        ({IDENTITY: GUID}, f"{ONE_CLIENT}: {SECRET} and {IDENTITY} exclude each other"),
        (
            {TOKEN: CANARY},
            f"exactly one of {VAULT}, {TOKEN} must be set: {VAULT} and {TOKEN} exclude each other",
        ),
        (
            {"AzureWebJobsStorage": ""},
            (
                "USAGE_STORAGE is missing: a connection string, or USAGE_STORAGE__blobServiceUri, "
                "or either of AzureWebJobsStorage"
            ),
        ),
        (
            {"USAGE_STORAGE__clientId": GUID},
            "USAGE_STORAGE__blobServiceUri is missing: the account's address, which the identity is for",
        ),
        ({"USAGE_STORAGE": "x"}, f"USAGE_STORAGE is wrong: {CONNECTION}"),
        (
            {"USAGE_STORAGE": RECORD_ACCOUNT, "USAGE_STORAGE__accountName": "x"},
            "USAGE_STORAGE and USAGE_STORAGE__… exclude each other",
        ),
        ({"USAGE_CACHE_CONTAINER": "X"}, f"USAGE_CACHE_CONTAINER is wrong: {CONTAINER}"),
        (
            {"USAGE_CACHE_FRESH_SECONDS": "0"},
            "USAGE_CACHE_FRESH_SECONDS is wrong: whole seconds, from 1 to 2147483647",
        ),
        (
            {"USAGE_CACHE_FRESH_SECONDS": "x", CLOUD: "mars"},
            (
                f"{CLOUD} is wrong: global or usgov; "
                "USAGE_CACHE_FRESH_SECONDS is wrong: whole seconds, from 1 to 2147483647"
            ),
        ),
    ],
)
def test_a_fault_says_what_is_allowed(changed: dict[str, str], said: str) -> None:
    assert complaint(GOOD | changed) == said


ACCOUNTS = [
    f"{connection}{member}"
    for connection in ("USAGE_STORAGE", "AzureWebJobsStorage")
    for member in ("", "__blobServiceUri", "__serviceUri", "__accountName", "__clientId")
]
FILES = ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", CERTIFICATE]
PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
PROXIES += [name.lower() for name in PROXIES]
EVERY_SETTING = sorted(
    {*MAY_BE_WRONG, *FILES, *ACCOUNTS, *PROXIES, SECRET, TOKEN, "AZURE_CLIENT_ID", "SNAPSHOT_SCHEDULE"}
)
REFERENCES = [
    f"@Microsoft.KeyVault(SecretUri=https://{CANARY}.vault.azure.net/secrets/app-secret/)",
    f"@Microsoft.KeyVault(VaultName={CANARY};SecretName=app-secret)",
    f"@Microsoft.AppConfiguration(Endpoint=https://{CANARY}.azconfig.io; Key=app-secret; Label=prod)",
    f'"@Microsoft.KeyVault(SecretUri=https://{CANARY}.vault.azure.net/secrets/app-secret)"',
    f" @microsoft.keyvault (SecretUri=https://{CANARY}.vault.azure.net/secrets/app-secret)\n",
]


def unresolved(name: str) -> str:
    return (
        f"{name} is a reference that the platform could not resolve: "
        "check its address, and that the app's identity may read what it names"
    )


def test_the_settings_that_may_be_a_reference_are_all_that_the_app_or_its_libraries_read() -> None:
    seen: set[str] = set()

    class Watched(dict[str, str]):
        def get(self, name: str, default: str = "") -> str:  # type: ignore[override]  # texts only
            seen.add(name)
            return super().get(name, default)

    read_settings(Watched(GOOD))
    assert seen == {*EVERY_SETTING}


@pytest.mark.parametrize("reference", REFERENCES)
def test_all_unresolved_references_are_named_at_once(reference: str) -> None:
    faults = complaint(dict.fromkeys(EVERY_SETTING, reference)).split("; ")
    assert {fault for fault in faults if "exclude each other" not in fault} == {
        *map(unresolved, EVERY_SETTING)
    }


BESIDE = {
    IDENTITY: {SECRET: ""},
    CERTIFICATE: {SECRET: ""},
    TOKEN: {VAULT: ""},
    "USAGE_STORAGE__clientId": {"USAGE_STORAGE__accountName": "a"},
    "AzureWebJobsStorage__clientId": {"AzureWebJobsStorage": "", "AzureWebJobsStorage__accountName": "a"},
} | {name: {"AzureWebJobsStorage": ""} for name in ACCOUNTS if name.endswith(("Uri", "Name"))}
"""What else changes, so that the setting is read and contradicts no other."""


@pytest.mark.parametrize("name", EVERY_SETTING)
def test_an_unresolved_reference_is_told_as_nothing_else(name: str) -> None:
    assert complaint(GOOD | BESIDE.get(name, {}) | {name: REFERENCES[0]}) == unresolved(name)


def test_a_reference_as_the_field_has_it_is_no_secret() -> None:
    name, _, value = (
        (FIELD / "settings" / "unresolved-reference.env").read_text("utf-8").strip().partition("=")
    )
    assert complaint(GOOD | {name: value}) == unresolved(name) == unresolved(SECRET)


def test_wrong_and_unresolved_settings_are_told_together() -> None:
    changed = {CLOUD: "mars", SECRET: REFERENCES[0], "USAGE_CACHE_FRESH_SECONDS": "0"}
    assert complaint(GOOD | changed).count("; ") == 2


def test_what_only_mentions_a_reference_is_a_value() -> None:
    secret = "a@Microsoft.KeyVault(b)"
    assert read(**{SECRET: secret}).client_authentication == ClientSecret(secret)


@pytest.mark.parametrize("name", ["PARTNER_CENTER_TENANT_ID", "PARTNER_CENTER_CLIENT_ID"])
def test_an_empty_value_is_a_missing_one(name: str) -> None:
    assert f"{name} is missing" in complaint(GOOD | {name: "  "})


def test_no_secret_is_in_what_settings_print() -> None:
    trial = read(PARTNER_CENTER_REFRESH_TOKEN_SECRET="", PARTNER_CENTER_REFRESH_TOKEN=CANARY)
    assert trial.refresh_token == GivenRefreshToken(CANARY)
    assert CANARY not in f"{trial!r} {trial} {trial.client_authentication} {trial.refresh_token}"
    assert CANARY not in f"{trial.cache_storage!r} {trial.record.storage!r}"


@pytest.mark.parametrize(("name", "attribute", "least"), SECONDS)
def test_a_duration_is_allowed_from_its_least_value_on(name: str, attribute: str, least: int) -> None:
    for seconds in (least, least + 1, 7200, 2**31 - 1):
        settings = read(**{name: str(seconds)})
        assert getattr(settings.freshness, attribute) == timedelta(seconds=seconds)
    assert f"from {least}" in complaint(GOOD | {name: str(least - 1)})


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", ["-1", "1.5", "1e3", "1_000", "+60", "٦٠", "60²", "an hour"])
def test_a_duration_is_whole_seconds_and_nothing_else(name: str, value: str) -> None:
    assert name in complaint(GOOD | {name: value})


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("zeros", [0, 11])
@pytest.mark.parametrize("nines", [11, 400, 5000])
def test_a_giant_duration_is_refused_also_behind_zeros(name: str, zeros: int, nines: int) -> None:
    assert name in complaint(GOOD | {name: "0" * zeros + "9" * nines})


def test_zeros_before_a_duration_do_not_change_it() -> None:
    assert read(USAGE_CACHE_FRESH_SECONDS="0" * 12 + "60").freshness.fresh == timedelta(seconds=60)


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("value", ["abc", "a" * 63, "a-b-c", "0-9"])
def test_a_container_may_have_any_name_that_storage_takes(name: str, value: str) -> None:
    settings = read(**{name: value})
    holder = settings if name == "USAGE_CACHE_CONTAINER" else settings.record
    assert getattr(holder, name.removeprefix("USAGE_").lower()) == value


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("value", ["ab", "a" * 64, "Abc", "a--b", "-ab", "ab-", "a_b", "a.b", "$web", "ærø"])
def test_a_container_name_that_storage_refuses_is_refused(name: str, value: str) -> None:
    assert name in complaint(GOOD | {name: value})


@pytest.mark.parametrize(("name", "domain"), [("global", "com"), ("usgov", "us")])
def test_a_cloud_has_its_addresses(name: str, domain: str) -> None:
    cloud = read(**{CLOUD: name}).cloud
    assert (cloud.base_url, cloud.resource) == (GLOBAL_API, GLOBAL_API)
    assert cloud.authority == f"https://login.microsoftonline.{domain}"


@pytest.mark.parametrize(("name", "reason"), [("germany", "2021-10-29"), ("china", "does not offer")])
@pytest.mark.parametrize("overrides", [{}, {BASE_URL: "https://a.example"}, {AUTHORITY: "https://b.example"}])
def test_a_refused_cloud_is_refused_with_the_reason(
    name: str, reason: str, overrides: dict[str, str]
) -> None:
    message = complaint(GOOD | {CLOUD: name} | overrides)
    assert CLOUD in message
    assert reason in message


@pytest.mark.parametrize("name", CLOUDS)
def test_both_overrides_admit_any_cloud_and_leave_it_its_resource(name: str) -> None:
    overrides = {BASE_URL: "https://a.example/api/", AUTHORITY: "https://b.example"}
    cloud = read(**{CLOUD: name}, **overrides).cloud
    assert (cloud.base_url, cloud.authority) == ("https://a.example/api", "https://b.example")
    assert (cloud.resource == GLOBAL_API) is (name != "china")


@pytest.mark.parametrize("host", ["https://a.example:8443", "http://127.0.0.1:7071", "http://[::1]:7071"])
def test_the_api_is_at_an_https_address_or_on_this_machine(host: str) -> None:
    assert read(**{BASE_URL: host}).cloud.base_url == host


def test_the_authority_is_at_an_https_address_everywhere() -> None:
    assert read(**{AUTHORITY: "https://127.0.0.1:8443"}).cloud.authority == "https://127.0.0.1:8443"
    with pytest.raises(ConfigurationError, match=AUTHORITY):
        read(**{AUTHORITY: "http://127.0.0.1:8443"})


NO_ADDRESSES = [
    *("http://a.example", "http://127.0.0.1.example", "a.example", "https://", "https://a.example:65536"),
    *(f"https://{text}" for text in (f"me:{CANARY}@a.example", f"a.example?{CANARY}", f"a.example#{CANARY}")),
    *(f"https://[{CANARY}", f"https://℀.{CANARY}", "https://me@a.example", f"https://:{CANARY}@a.example"),
]


@pytest.mark.parametrize("name", [BASE_URL, AUTHORITY, "USAGE_STORAGE__blobServiceUri"])
@pytest.mark.parametrize("value", NO_ADDRESSES)
def test_what_is_no_such_address_is_refused(name: str, value: str) -> None:
    assert name in complaint(GOOD | {name: value})


CLIENTS = {
    "PARTNER_CENTER_CLIENT_SECRET": (CANARY, ClientSecret(CANARY)),
    "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH": ("/certs/app.pfx", ClientCertificate("/certs/app.pfx")),
    "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY": (GUID, ClientManagedIdentity(GUID)),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_each_way_of_client_authentication_works_alone(name: str) -> None:
    value, expected = CLIENTS[name]
    given = dict.fromkeys(CLIENTS, "") | {name: value}
    assert read_settings(GOOD | given).client_authentication == expected


@pytest.mark.parametrize("left_out", [None, *CLIENTS])
def test_two_ways_of_client_authentication_exclude_each_other(left_out: str | None) -> None:
    given = {name: value for name, (value, _) in CLIENTS.items() if name != left_out}
    assert named(complaint(GOOD | {"PARTNER_CENTER_CLIENT_SECRET": ""} | given)) >= given.keys()


def test_the_refresh_token_comes_from_one_place() -> None:
    assert read().refresh_token == VaultSecret("https://a-vault.vault.azure.net", "refresh-token")
    address = "https://a-vault.vault.azure.net/secrets/ConsentX/"
    changed = read(PARTNER_CENTER_REFRESH_TOKEN_SECRET=address)
    assert changed.refresh_token == VaultSecret("https://a-vault.vault.azure.net", "ConsentX")
    given_twice = complaint(GOOD | {"PARTNER_CENTER_REFRESH_TOKEN": CANARY})
    assert named(given_twice) == {"PARTNER_CENTER_REFRESH_TOKEN", "PARTNER_CENTER_REFRESH_TOKEN_SECRET"}


@pytest.mark.parametrize("address", [*NO_ADDRESSES, "http://127.0.0.1"])
def test_a_refresh_token_is_kept_at_an_https_address_only(address: str) -> None:
    assert VAULT in complaint(GOOD | {VAULT: f"{address}/secrets/name"})


@pytest.mark.parametrize(
    "path", ["", "secrets/", "keys/a", "secrets/a_b", "secrets/a/0", f"secrets/{'a' * 128}"]
)
def test_a_vault_address_names_a_secret_without_a_version(path: str) -> None:
    assert VAULT in complaint(GOOD | {VAULT: f"https://vault.example/{path}"})


anything = st.text(max_size=40) | st.text("/:[]@?#.a0", max_size=9).map("https://{}".format)


@given(st.dictionaries(st.sampled_from([*GOOD, *MAY_BE_WRONG]), anything))
def test_any_mapping_gives_settings_or_an_error_that_names_settings(changed: dict[str, str]) -> None:
    try:
        settings = read_settings(GOOD | changed)
    except ConfigurationError as error:
        assert any(name in error.message for name in changed)  # noqa: PT017  # either is right
    else:
        assert settings.freshness.fresh >= timedelta(seconds=1)


def test_the_trusted_authorities_and_the_identity_are_those_of_the_platform() -> None:
    both = read(REQUESTS_CA_BUNDLE="/a.pem", SSL_CERT_FILE="/b.pem", AZURE_CLIENT_ID=GUID)
    assert (both.ca_bundle, both.identity_client_id) == ("/a.pem", GUID)
    assert read(SSL_CERT_FILE="/b.pem").ca_bundle == "/b.pem"


HOST, RECORD = StorageConnection(HOST_ACCOUNT), StorageConnection(RECORD_ACCOUNT)
HOSTS_STRING, RECORDS_STRING = {"AzureWebJobsStorage": HOST_ACCOUNT}, {"USAGE_STORAGE": RECORD_ACCOUNT}


def test_storage_without_an_identity_of_its_own_takes_the_apps() -> None:
    own, apps = str(UUID(int=1)), str(UUID(int=2))
    uri = {"USAGE_STORAGE__blobServiceUri": "https://a.example", "AZURE_CLIENT_ID": apps}
    assert read(**uri).record.storage.client_id == apps
    assert read(**uri, USAGE_STORAGE__clientId=own).record.storage.client_id == own


RECORDS_URI = {"USAGE_STORAGE__blobServiceUri": "https://a.example", "USAGE_STORAGE__clientId": GUID}
HOSTS_NAME = {"AzureWebJobsStorage__accountName": "a", "AzureWebJobsStorage__credential": "managedidentity"}
HOSTS_URI = {"AzureWebJobsStorage__blobServiceUri": "http://127.0.0.1:10000/a"}
BY_URI, BY_NAME = "https://a.example", "https://a.blob.core.windows.net"


@pytest.mark.parametrize(
    ("connections", "record", "cache"),
    [
        (HOSTS_STRING, HOST, HOST),
        (RECORDS_STRING, RECORD, RECORD),
        (RECORDS_STRING | HOSTS_STRING, RECORD, HOST),
        (RECORDS_URI, StorageConnection(None, BY_URI, GUID), StorageConnection(None, BY_URI, GUID)),
        (RECORDS_URI | HOSTS_STRING, StorageConnection(None, BY_URI, GUID), HOST),
        (RECORDS_STRING | HOSTS_NAME, RECORD, StorageConnection(None, BY_NAME)),
        (RECORDS_STRING | HOSTS_URI, RECORD, StorageConnection(None, "http://127.0.0.1:10000/a")),
    ],
)
def test_the_record_and_the_shared_answer_have_their_accounts(
    connections: dict[str, str], record: StorageConnection, cache: StorageConnection
) -> None:
    settings = read_settings(GOOD | {"AzureWebJobsStorage": ""} | connections)
    assert (settings.record.storage, settings.cache_storage) == (record, cache)


RECORDS_CONTAINERS = {"USAGE_SNAPSHOT_CONTAINER": "dated", "USAGE_HISTORY_CONTAINER": "rows"}


def test_who_looks_after_the_record_needs_no_settings_of_partner_center() -> None:
    environ = RECORDS_STRING | RECORDS_CONTAINERS | {"SSL_CERT_FILE": "/b.pem"}
    assert read_record_settings(environ) == RecordSettings(RECORD, "dated", "rows", "/b.pem")
    assert read_record_settings(HOSTS_STRING) == RecordSettings(HOST, "usage", "usage-history", None)
    assert read_settings(GOOD | environ).record == read_record_settings(environ)
    assert read_record_settings(RECORDS_STRING | HOSTS_STRING).storage == RECORD


def test_who_looks_after_the_record_is_told_all_faults_of_its_settings_at_once() -> None:
    wrong = dict.fromkeys([*RECORDS_CONTAINERS, "USAGE_STORAGE", "PARTNER_CENTER_CLOUD"], CANARY)
    with pytest.raises(ConfigurationError) as caught:
        read_record_settings(wrong | {"SSL_CERT_FILE": "/b.pem"}, lambda _: False)
    message = caught.value.message
    assert named(message) == {*RECORDS_CONTAINERS, "USAGE_STORAGE", "SSL_CERT_FILE"}
    assert CANARY not in message
    with pytest.raises(ConfigurationError, match=r"^USAGE_STORAGE is missing: "):
        read_record_settings({})


def test_who_only_signs_in_needs_no_storage() -> None:
    environ = GOOD | {"AzureWebJobsStorage": ""}
    settings = read_partner_center_settings(environ)
    assert (settings.tenant_id, settings.client_id) == (GUID, OTHER_GUID)
    with pytest.raises(ConfigurationError) as caught:
        read_partner_center_settings(environ | {"PARTNER_CENTER_CLOUD": CANARY, **RECORDS_CONTAINERS})
    assert named(caught.value.message) == {"PARTNER_CENTER_CLOUD"}
    with pytest.raises(ConfigurationError, match=r"^SSL_CERT_FILE is wrong"):
        read_partner_center_settings(environ | {"SSL_CERT_FILE": "/b.pem"}, lambda _: False)


@pytest.mark.parametrize("name", ["USAGE_STORAGE", "AzureWebJobsStorage"])
@pytest.mark.parametrize("value", [CANARY, f"https://x.blob.example/?sig={CANARY}"])
def test_a_wrong_storage_connection_is_named(name: str, value: str) -> None:
    assert name in complaint(GOOD | {name: value})


def test_an_address_is_on_this_machine_only_on_loopback() -> None:
    addresses = ["http://127.9.9.9:1", "https://localhost", "https://a.example", "http://10.0.0.1", "nowhere"]
    assert [is_on_this_machine(address) for address in addresses] == [True, True, False, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "UseDevelopmentStorage=true",
        "AccountName=a;AccountKey=a2V5",
        "AccountName=a;AccountKey=AAAX",
        "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:10000/a;",
        "BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=sv=2026&sig=a%3D",
    ],
)
def test_a_connection_string_names_an_account_and_a_credential(text: str) -> None:
    assert read(USAGE_STORAGE=text).record.storage.connection_string == text


@pytest.mark.parametrize(
    "text",
    [
        "UseDevelopmentStorage=false",
        "AccountName=a",
        "AccountName=a;junk",
        "AccountName=a;AccountKey=",
        "AccountName=a;AccountKey=no base64",
        "AccountKey=a2V5",
        "SharedAccessSignature=sig=a",
        "BlobEndpoint=https://a.blob.core.windows.net",
    ],
)
def test_what_lacks_either_is_no_connection_string(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^USAGE_STORAGE is wrong: a storage connection string"):
        read(USAGE_STORAGE=text)


@pytest.mark.parametrize("name", ["USAGE_STORAGE__blobServiceUri", "USAGE_STORAGE__accountName"])
def test_a_connection_string_and_an_address_exclude_each_other(name: str) -> None:
    with pytest.raises(ConfigurationError, match="USAGE_STORAGE and USAGE_STORAGE__… exclude each other"):
        read(USAGE_STORAGE=RECORD_ACCOUNT, **{name: "https://a.example"})


def test_an_identity_without_an_address_is_contradictory() -> None:
    with pytest.raises(ConfigurationError, match="USAGE_STORAGE__blobServiceUri is missing"):
        read(USAGE_STORAGE__clientId=GUID)


@pytest.mark.parametrize(
    "name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PARTNER_CENTER_CLIENT_CERTIFICATE_PATH"]
)
def test_a_path_names_a_file_that_exists(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is wrong: the path of a file that exists"):
        read_settings(GOOD | {name: "/nowhere/at.all"}, lambda _: False)
