"""What the operator does about a code with which Entra, Partner Center or Azure refuses: a sentence each.

Codes are good for hints only and decide nothing: they may change, Microsoft says. Sources:
learn.microsoft.com/entra/identity-platform/reference-error-codes,
learn.microsoft.com/partner-center/developer/error-codes,
learn.microsoft.com/azure/key-vault/general/rest-error-codes,
learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes.
"""

_ANEW = "run python3 -m ops consent"
_WITH_MFA = "Run python3 -m ops consent and sign in with MFA, without which this consent was given."
_WAIT = (
    "Wait a few minutes while the app tries again by itself, and look at the service's health if it stays."
)
_EXEMPT = (
    "Exempt the service account from the Conditional Access policy that its sign-in log names; "
    "a Flex Consumption app has no outbound address of its own to admit."
)

# Numbers are those of AADSTS, words are OAuth's `error`. Microsoft's page lacks 500113, 650053, 700007 and
# 900023: their texts are those that people quote in public. Those that refuse the app's own secret,
# certificate or federated credential are in `refusals`.
_ENTRA = {
    "50074, 50076, 50158": _WITH_MFA,
    "50072, 50079, 53004, 530035": (
        f"Register an MFA method for the service account, then {_ANEW} and sign in with it."
    ),
    "50078": (
        "Exempt the service account from the policy that lets its MFA expire, such as remembering MFA "
        f"on trusted devices, then {_ANEW}."
    ),
    "70043": f"Exempt the service account from the policy on sign-in frequency, then {_ANEW}.",
    "50132, 50133, 50173": (
        "Run python3 -m ops consent, since an admin's password reset or revoked sessions ended the last one."
    ),
    "70008, 700082": (
        "Run python3 -m ops consent, then check with python3 -m ops token status that new refresh tokens "
        "are written back, since unused ones expire after 90 days."
    ),
    "70000, 700005, 700007": (
        "Check PARTNER_CENTER_CLIENT_ID and PARTNER_CENTER_TENANT_ID, "
        f"then {_ANEW}, since the stored token is damaged or another app's."
    ),
    "50058, 50089, 54005": "Run python3 -m ops consent once more and sign in without a pause, in one window.",
    "700020, invalid_grant, interaction_required, login_required": (
        "Run python3 -m ops consent, since the stored refresh token is no longer accepted."
    ),
    "50097, 50131, 53000, 53001, 53003, 53011, 530032": _EXEMPT,
    "50105": "Assign the service account to the app under Enterprise applications > Users and groups.",
    "65001, 90094, 90095, consent_required": (
        "Grant admin consent for the app's permission user_impersonation of Microsoft Partner Center, "
        f"then {_ANEW}."
    ),
    "65004, access_denied": f"Accept what the app asks for, as one who may grant it: {_ANEW} once more.",
    "65005, 650056, 650057": (
        "Add the delegated permission user_impersonation of Microsoft Partner Center to the app registration "
        "and grant admin consent."
    ),
    "50001, 500011, 500014, 650052, invalid_resource": (
        "Create or enable the enterprise application Microsoft Partner Center in the tenant, "
        "and check PARTNER_CENTER_TENANT_ID and PARTNER_CENTER_CLOUD."
    ),
    "700011, 700016, unauthorized_client": (
        "Check PARTNER_CENTER_CLIENT_ID and PARTNER_CENTER_TENANT_ID, since the tenant does not know the app."
    ),
    "70001, 7000112, 7000229": "Enable the app for sign-in under Enterprise applications > Properties.",
    "50011, 500112, 500113, 70004, 700025, 700084, 900971, 9002327": (
        "Register http://localhost:8400 as a redirect URI of the platform Web, "
        f"not single-page or mobile, then {_ANEW}."
    ),
    "50059, 50128, 90002, 90019, 900023": (
        "Correct PARTNER_CENTER_TENANT_ID, the partner's own tenant in the cloud of PARTNER_CENTER_CLOUD."
    ),
    "90038, 900382, 900432": (
        "Set PARTNER_CENTER_CLOUD to the cloud that holds the partner's tenant, since tokens cross no clouds."
    ),
    "16000, 50014, 50020, 50034, 50177, 50178, 51004, 90072": (
        "Run python3 -m ops consent with an account of the partner's own tenant, not with a guest."
    ),
    "7000218": (
        "Set one of PARTNER_CENTER_CLIENT_SECRET, PARTNER_CENTER_CLIENT_CERTIFICATE_PATH "
        "and PARTNER_CENTER_CLIENT_MANAGED_IDENTITY."
    ),
    "50057, 500341": f"Enable the service account in Entra, then {_ANEW}.",
    "50053": "Unlock the service account, or sign in from another address if its sign-in log says so.",
    "50055, 50142, 50144": f"Give the service account a new password, then {_ANEW} and sign in with it.",
    "50056, 50126": "Run python3 -m ops consent once more with the right user name and password.",
    "50196": "Stop whatever asks for tokens in a loop, such as an app that restarts on and on, and wait.",
    "50033, 50087, 90006, 90012, 90024, 90033, 90090, temporarily_unavailable, server_error": _WAIT,
    "28002, 28003, 650053, 70011, 700022, 901002, invalid_scope": (
        "Check PARTNER_CENTER_CLOUD, which the scope follows from, and report a defect if that is right."
    ),
    "70003, 90014, 900144, 9002313, invalid_request, unsupported_grant_type": (
        "Run python3 -m ops consent, since a damaged token may be the cause, and report a defect if it stays."
    ),
}

# An answer without a code goes by its status, with HTTP before it: Partner Center has a code 400, too.
_PARTNER_CENTER = {
    "10001, 900421": _WITH_MFA,
    "900309": _EXEMPT,
    "2032, 900150, 900308": (
        f"Give the service account the role Admin agent in Partner Center, or {_ANEW} with one that has it."
    ),
    "HTTP 403": (
        "Give the service account the role Admin agent, and use the tenant of a direct-bill partner "
        "or an indirect provider, since indirect resellers are not served."
    ),
    "400, 800001, HTTP 401": (
        "Enable API access for the app in Partner Center under Account settings > App management."
    ),
    "900420": "Set PARTNER_CENTER_CLOUD to the partner's cloud, so that the token is for Partner Center.",
    "900329": "Run python3 -m ops consent, since the token stands for the app alone and for no person.",
    "900124": "Have a global administrator accept the Microsoft Partner Agreement in Partner Center.",
    "900149": "Check in Partner Center that the enrolment as a Cloud Solution Provider is active.",
    "90000": f"Read in the service account's sign-in log why Entra gave no token, then {_ANEW}.",
    "1000, 60003, HTTP 404": (
        "Check that PARTNER_CENTER_TENANT_ID is the tenant enrolled as a partner, "
        "and PARTNER_CENTER_BASE_URL, if set, Partner Center's address."
    ),
    "800003, 900192, HTTP 429": _WAIT,
}

# The inner codes of Key Vault's Forbidden and Conflict, which its page describes but does not name.
_KEY_VAULT = {
    "ForbiddenByRbac": (
        "Give the identity that asked, the app's or your own, the role Key Vault Secrets Officer "
        "on the secret, and wait a few minutes."
    ),
    "AccessDenied, ForbiddenByPolicy": (
        "Give the identity that asked, the app's or your own, the secret permissions Get and Set "
        "in the vault's access policies."
    ),
    "ForbiddenByFirewall": "Admit the app's subnet, or your own address for ops, in the vault's firewall.",
    "ForbiddenByConnection": (
        "Reach the vault by an approved private endpoint, or allow public access in the vault's networking."
    ),
    "SecretNotFound": "Run python3 -m ops consent, so that a first consent is stored.",
    "SecretDisabled": f"Enable the secret's newest version in the vault, or {_ANEW} to store another.",
    "ObjectIsBeingRecovered, ObjectIsBeingDeleted": "Wait a minute until the vault is done, then try again.",
    "ObjectIsDeletedButRecoverable": f"Recover the deleted secret in the vault, then {_ANEW}.",
}

_BLOB_STORAGE = {
    "AuthorizationPermissionMismatch": (
        "Give the identity that asked, the app's or your own, the role Storage Blob Data Contributor on the "
        "container (to read, Reader is enough), and wait a few minutes."
    ),
    "AuthorizationFailure": (
        "Admit the app's subnet, or your own address for ops, in the storage account's networking."
    ),
    "BlobArchived": "Rehydrate the archived blob to an online tier; let no rule archive the record.",
    "BlobBeingRehydrated": "Wait until the archived blob is rehydrated, which may take some hours.",
    "BlobUsesCustomerSpecifiedEncryption": "Upload the blob again without an encryption key of your own.",
    "AuthenticationFailed": "Check the key in the storage connection string, and the machine's clock.",
    "KeyBasedAuthenticationNotPermitted": (
        "Set USAGE_STORAGE__blobServiceUri instead of a connection string, since the account takes no keys."
    ),
}

# The SDK's words when the platform gives no token of a managed identity.
_IDENTITY = {
    "ClientAuthenticationError, CredentialUnavailableError": (
        "Check that the app has a managed identity, and that AZURE_CLIENT_ID and "
        "PARTNER_CENTER_CLIENT_MANAGED_IDENTITY, where set, are client ids of its own."
    ),
}

_ROWS = [
    (f"AADSTS{code}" if table is _ENTRA and code.isdigit() else code, sentence)
    for table in (_ENTRA, _PARTNER_CENTER, _KEY_VAULT, _BLOB_STORAGE, _IDENTITY)
    for codes, sentence in table.items()
    for code in codes.split(", ")
]
_HINTS = dict(_ROWS)


def hint(*codes: str | None) -> str | None:
    """The hint for the first of these codes that has one: AADSTS50076, invalid_grant, 900421, HTTP 401."""
    return next((_HINTS[code] for code in codes if code in _HINTS), None)
