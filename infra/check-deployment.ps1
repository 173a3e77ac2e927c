# The same as check-deployment.sh, for Windows.
$ErrorActionPreference = 'Stop'
$seconds = if ($env:CHECK_DEPLOYMENT_SECONDS) { $env:CHECK_DEPLOYMENT_SECONDS } else { 10 }

az account show --output none # az has a sign-in of its own, which azd's does not give
if ($LASTEXITCODE -ne 0) { exit 1 }

for ($try = 0; $try -lt 30; $try++) {
    $functions = "$(az functionapp function list --subscription $env:AZURE_SUBSCRIPTION_ID --resource-group $env:AZURE_RESOURCE_GROUP --name $env:APP_NAME --query '[].name' --output tsv)"
    $status = curl.exe --silent --output NUL --write-out '%{http_code}' --max-time 30 "https://$($env:APP_HOST_NAME)/v1/usagesummary"
    if ($functions -match 'GetUsageSummary' -and $functions -match 'SnapshotTimer' -and $status -eq '401') {
        Write-Output 'GetUsageSummary and SnapshotTimer are there, and a GET without a key is answered with 401'
        exit 0
    }
    Start-Sleep -Seconds $seconds
}
Write-Error "the deployment is not complete: functions: $(if ($functions) { $functions } else { 'none' }); a GET without a key was answered with $status, not 401; see docs/operations.md, A deployment without functions"
exit 1
