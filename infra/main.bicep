// What `azd up` makes: a resource group with the app, its identity, two storage accounts, a vault, and its watch.
targetScope = 'subscription'

@minLength(1)
@maxLength(32)
@description('The azd environment; part of all names.')
param environmentName string

@minLength(1)
@metadata({
  azd: {
    type: 'location'
  }
})
@description('The region of everything. It has to offer Flex Consumption.')
param location string

@description('The partner\'s tenant.')
param partnerCenterTenantId string

@description('The app registration that is federated with the identity made here.')
param partnerCenterClientId string

@allowed([
  'global'
  'usgov'
])
@description('The partner\'s cloud.')
param partnerCenterCloud string = 'global'

@description('When snapshots are taken: NCRONTAB with seconds, in UTC.')
param snapshotSchedule string = '0 5 * * * *'

@allowed([
  'Standard_ZRS'
  'Standard_GZRS'
  'Standard_LRS'
  'Standard_GRS'
])
@description('Redundancy of the record.')
param recordRedundancy string = 'Standard_ZRS'

@minValue(0)
@maxValue(3650)
@description('Days for which snapshots may not be changed or deleted (WORM, unlocked); 0 is none.')
param recordImmutableDays int = 0

@description('Object id of who runs `python3 -m ops`; empty: who deploys.')
param operatorPrincipalId string = ''

@allowed([
  'User'
  'Group'
  'ServicePrincipal'
])
@description('What the operator is.')
param operatorPrincipalType string = 'User'

@description('Object id of a group that may read the history, for Power BI; empty: none. It has no such role by hand.')
param reportReaderGroupId string = ''

@description('Address that alerts are sent to; empty: none.')
param alertEmail string = ''

@description('Resource id of an action group that alerts are sent to as well; empty: none.')
param alertActionGroupId string = ''

@minValue(1)
@maxValue(90)
@description('Age in days from which on the stored refresh token is an alert; it dies at 90.')
param refreshTokenAlertDays int = 30

var tags = {
  'azd-env-name': environmentName
}
var token = uniqueString(subscription().id, environmentName, location)
var operator = empty(operatorPrincipalId) ? deployer().objectId : operatorPrincipalId

// Names and addresses come from here and not from outputs: `azd provision --preview` shows no module that waits
// for another's. Only that of the roles does, whose names are made of the identity's principal id.
var identityName = 'id-usage-summary-${token}'
var workspaceName = 'log-usage-summary-${token}'
var insightsName = 'appi-usage-summary-${token}'
var hostStorageName = 'sthost${token}'
var recordStorageName = 'strecord${token}'
var vaultName = 'kv-${token}'
var appName = 'func-usage-summary-${token}'
var recordBlobEndpoint = 'https://${recordStorageName}.blob.${environment().suffixes.storage}/'
var refreshTokenAddress = 'https://${vaultName}${environment().suffixes.keyvaultDns}/secrets/partner-center-refresh-token'

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'identity.bicep' = {
  name: 'identity'
  scope: group
  params: {
    name: identityName
    location: location
    tags: tags
  }
}

module monitoring 'monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    workspaceName: workspaceName
    insightsName: insightsName
    location: location
    tags: tags
  }
}

module storage 'storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    hostStorageName: hostStorageName
    recordStorageName: recordStorageName
    location: location
    tags: tags
    recordRedundancy: recordRedundancy
    recordImmutableDays: recordImmutableDays
  }
}

module vault 'vault.bicep' = {
  name: 'vault'
  scope: group
  dependsOn: [
    monitoring
  ]
  params: {
    name: vaultName
    workspaceName: workspaceName
    location: location
    tags: tags
  }
}

module roles 'roles.bicep' = {
  name: 'roles'
  scope: group
  dependsOn: [
    monitoring
    storage
    vault
  ]
  params: {
    hostStorageName: hostStorageName
    recordStorageName: recordStorageName
    vaultName: vaultName
    workspaceName: workspaceName
    insightsName: insightsName
    appPrincipalId: identity.outputs.principalId
    operatorPrincipalId: operator
    operatorPrincipalType: operatorPrincipalType
    reportReaderGroupId: reportReaderGroupId
  }
}

module app 'app.bicep' = {
  name: 'app'
  scope: group
  dependsOn: [
    roles
  ]
  params: {
    name: appName
    planName: 'plan-usage-summary-${token}'
    location: location
    tags: tags
    identityName: identityName
    hostStorageName: hostStorageName
    insightsName: insightsName
    recordBlobEndpoint: recordBlobEndpoint
    partnerCenterTenantId: partnerCenterTenantId
    partnerCenterClientId: partnerCenterClientId
    partnerCenterCloud: partnerCenterCloud
    refreshTokenAddress: refreshTokenAddress
    snapshotSchedule: snapshotSchedule
  }
}

module alerts 'alerts.bicep' = {
  name: 'alerts'
  scope: group
  dependsOn: [
    monitoring
  ]
  params: {
    token: token
    location: location
    tags: tags
    workspaceName: workspaceName
    alertEmail: alertEmail
    alertActionGroupId: alertActionGroupId
    refreshTokenAlertDays: refreshTokenAlertDays
    snapshotSchedule: snapshotSchedule
  }
}

output AZURE_LOCATION string = location
output AZURE_RESOURCE_GROUP string = group.name
output APP_NAME string = appName
output APP_HOST_NAME string = app.outputs.hostName
output HOST_STORAGE_NAME string = hostStorageName
output HISTORY_URL string = '${recordBlobEndpoint}usage-history/usagesummary.ndjson'
output IDENTITY_CLIENT_ID string = identity.outputs.clientId
output IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId
output PARTNER_CENTER_CLOUD string = partnerCenterCloud
output PARTNER_CENTER_CLIENT_ID string = partnerCenterClientId
output PARTNER_CENTER_TENANT_ID string = partnerCenterTenantId
output RECORD_BLOB_ENDPOINT string = recordBlobEndpoint
output REFRESH_TOKEN_SECRET string = refreshTokenAddress
output VAULT_NAME string = vaultName
output WORKSPACE_ID string = monitoring.outputs.customerId
