"""What both functions share, one idea a file; each module imports only modules further down.

app            composition root: the only reader of the environment, the only builder of live objects
http           a stored answer or an error -> an HTTP response
problems       pure: what callers see of each error
run            one run of the timer: today's answer, its snapshot, the history
history        the files made of the dated blobs, brought up to date or rebuilt
record         the dated blobs: a day's snapshots, written once
answers        the answer as one process gives it to a caller
flights        refreshes in threads, one at a time in a process
refresh        the shared answer adopted, or Partner Center asked under the claim
fleet          what all instances share: one blob, replaced on condition
fleet_blob     pure: that blob: the answer in it, the claim or the back-off on it
known          what a process holds, until when nobody asks, and what that means for a request
outcome        pure: what a refresh is for, and how it ended
held           pure: an answer as it is held and shared
client         Partner Center over HTTP
replies        what its answers mean
auth           the App+User credential: access tokens, renewed one redemption at a time
consent        the newest refresh token, and the vault's copy of it
entra          Entra ID's token endpoint
refusals       pure: what a refusal of Entra means
vault          where the refresh token lives
blobs          Blob Storage: conditional reads and writes
blob           pure: a blob as Blob Storage tells of it
identity       the platform's managed identity
identity_endpoint  where it is asked: past every proxy, and twice
deadlines      HTTP exchanges that end at one instant, and when to come again
drafts         pure: what the history is to be, from the one before and what is new
former         pure: the history as a run finds it: its rows, and the snapshots that it has seen
rows           pure: the history's rows, as ndjson and CSV, and their manifest
snapshots      pure: a dated blob's name and document
usage_summary  pure: what a usage summary is
freshness      pure: fresh, stale or expired
clock          time as an argument
schedule       pure: which instants the timer's schedule has
events         pure: one log line an outcome
hints          pure: what the operator does about a code
guids          pure: what a GUID looks like
configuration  pure: the settings, read from a mapping
values         pure: one value of a kind, and what is wrong with it
settings       pure: what the app is set to
clouds         pure: the national clouds
errors         pure: the error tree
"""
