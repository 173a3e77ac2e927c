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

@description('Object id of a group that may read the history, for Power BI; empty: none.')
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

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity 'identity.bicep' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-usage-summary-${token}'
    location: location
    tags: tags
  }
}

module monitoring 'monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    appPrincipalId: identity.outputs.principalId
    operatorPrincipalId: operator
    operatorPrincipalType: operatorPrincipalType
  }
}

module storage 'storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    recordRedundancy: recordRedundancy
    recordImmutableDays: recordImmutableDays
    appPrincipalId: identity.outputs.principalId
    operatorPrincipalId: operator
    operatorPrincipalType: operatorPrincipalType
    reportReaderGroupId: reportReaderGroupId
  }
}

module vault 'vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    workspaceId: monitoring.outputs.workspaceId
    token: token
    location: location
    tags: tags
    appPrincipalId: identity.outputs.principalId
    operatorPrincipalId: operator
    operatorPrincipalType: operatorPrincipalType
  }
}

module app 'app.bicep' = {
  name: 'app'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    hostEndpoints: storage.outputs.hostEndpoints
    deploymentContainerUrl: storage.outputs.deploymentContainerUrl
    recordBlobEndpoint: storage.outputs.recordBlobEndpoint
    insightsConnectionString: monitoring.outputs.connectionString
    partnerCenterTenantId: partnerCenterTenantId
    partnerCenterClientId: partnerCenterClientId
    partnerCenterCloud: partnerCenterCloud
    refreshTokenSecret: vault.outputs.refreshTokenSecret
    snapshotSchedule: snapshotSchedule
  }
}

module alerts 'alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    token: token
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    alertEmail: alertEmail
    alertActionGroupId: alertActionGroupId
    refreshTokenAlertDays: refreshTokenAlertDays
  }
}

output AZURE_LOCATION string = location
output AZURE_RESOURCE_GROUP string = group.name
output APP_NAME string = app.outputs.name
output APP_HOST_NAME string = app.outputs.hostName
output HOST_STORAGE_NAME string = storage.outputs.hostName
output HISTORY_URL string = storage.outputs.historyUrl
output IDENTITY_CLIENT_ID string = identity.outputs.clientId
output IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId
output PARTNER_CENTER_CLIENT_ID string = partnerCenterClientId
output PARTNER_CENTER_TENANT_ID string = partnerCenterTenantId
output RECORD_BLOB_ENDPOINT string = storage.outputs.recordBlobEndpoint
output REFRESH_TOKEN_SECRET string = vault.outputs.refreshTokenSecret
output VAULT_NAME string = vault.outputs.name
output WORKSPACE_ID string = monitoring.outputs.customerId
