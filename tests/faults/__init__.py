"""The table of faults: what breaks, where, what callers see of it, and how it ends."""

from tests.faults.partner_center import PARTNER_CENTER
from tests.faults.signing_in import ENDPOINT, KEY_VAULT, SIGN_IN
from tests.faults.within import CLOCK, PROCESS, STORAGE

TABLE = {
    "Partner Center": PARTNER_CENTER,
    "Sign-in (Entra)": SIGN_IN,
    "Vault": KEY_VAULT,
    "Identity endpoint": ENDPOINT,
    "Storage": STORAGE,
    "Clock": CLOCK,
    "Process": PROCESS,
}
