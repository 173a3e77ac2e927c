// Who may do what, and where. Nobody has a key.
param hostStorageName string
param recordStorageName string
param vaultName string
param workspaceName string
param insightsName string
param appPrincipalId string
param operatorPrincipalId string
param operatorPrincipalType string
param reportReaderGroupId string

var keyVaultSecretsOfficer = 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'
var logAnalyticsReader = '73c42c96-874c-492b-b04d-ab87d138a893'
var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var storageBlobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var storageBlobDataReader = '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'

resource host 'Microsoft.Storage/storageAccounts@2025-06-01' existing = {
  name: hostStorageName
}

resource record 'Microsoft.Storage/storageAccounts@2025-06-01' existing = {
  name: recordStorageName
}

resource recordBlobs 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' existing = {
  parent: record
  name: 'default'
}

resource usage 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' existing = {
  parent: recordBlobs
  name: 'usage'
}

resource history 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' existing = {
  parent: recordBlobs
  name: 'usage-history'
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = {
  name: vaultName
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' existing = {
  name: workspaceName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

// The host keeps its leases, keys and package there.
resource appOwnsHost 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(host.id, appPrincipalId, storageBlobDataOwner)
  scope: host
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataOwner)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource appWritesUsage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(usage.id, appPrincipalId, storageBlobDataContributor)
  scope: usage
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource appWritesHistory 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(history.id, appPrincipalId, storageBlobDataContributor)
  scope: history
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource operatorReadsUsage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(usage.id, operatorPrincipalId, storageBlobDataReader)
  scope: usage
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

resource operatorReadsHistory 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(history.id, operatorPrincipalId, storageBlobDataReader)
  scope: history
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

resource reportReads 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(reportReaderGroupId)) {
  name: guid(history.id, reportReaderGroupId, storageBlobDataReader)
  scope: history
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
    principalId: reportReaderGroupId
    principalType: 'Group'
  }
}

// Reads the refresh token, writes a newer version back, disables the one before.
resource appKeeps 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, appPrincipalId, keyVaultSecretsOfficer)
  scope: vault
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsOfficer)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource operatorKeeps 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, operatorPrincipalId, keyVaultSecretsOfficer)
  scope: vault
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsOfficer)
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

resource appPublishes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, appPrincipalId, monitoringMetricsPublisher)
  scope: insights
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource operatorReads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(workspace.id, operatorPrincipalId, logAnalyticsReader)
  scope: workspace
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', logAnalyticsReader)
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}
