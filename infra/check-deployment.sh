#!/bin/sh
# After `azd deploy`: a deployment can succeed with no function in it. Fails unless both functions are listed
# and a GET without a key is answered with 401. APP_NAME and the like are outputs of main.bicep.
set -eu

az account show --output none # az has a sign-in of its own, which azd's does not give
tries=30
while [ "$tries" -gt 0 ]; do
  functions=$(az functionapp function list --subscription "$AZURE_SUBSCRIPTION_ID" --resource-group "$AZURE_RESOURCE_GROUP" --name "$APP_NAME" \
    --query "[].name" --output tsv || true)
  status=$(curl --silent --output /dev/null --write-out '%{http_code}' --max-time 30 \
    "https://$APP_HOST_NAME/v1/usagesummary" || true)
  case "$functions" in
    *GetUsageSummary*SnapshotTimer* | *SnapshotTimer*GetUsageSummary*)
      if [ "$status" = 401 ]; then
        echo "GetUsageSummary and SnapshotTimer are there, and a GET without a key is answered with 401"
        exit 0
      fi
      ;;
  esac
  tries=$((tries - 1))
  sleep "${CHECK_DEPLOYMENT_SECONDS:-10}"
done
echo "the deployment is not complete: functions: ${functions:-none}; a GET without a key was answered with $status, not 401" >&2
echo "see docs/operations.md, A deployment without functions" >&2
exit 1
