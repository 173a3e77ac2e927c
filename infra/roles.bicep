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

// Azure knows one assignment for a principal, a role and a scope, whatever its name, and one principal may be given
// twice: as operator and as report reader, or in other letters. So ids are in lower case and each loop is over a set.
// Two assignments with conditions would have one name there, and ARM does not always look at the condition first:
// github.com/Azure/bicep/issues/11290. Names are those of Bicep's getRoleAssignmentName(), which the portal and az
// are to use as well: github.com/Azure/bicep/pull/20293.
var app = toLower(appPrincipalId)
var operator = toLower(operatorPrincipalId)
var reportReader = toLower(reportReaderGroupId)
var historyReaders = union([operator], empty(reportReader) ? [] : [reportReader])
var vaultKeepers = union([app], [operator])

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
  name: guid(toLower(host.id), app, storageBlobDataOwner)
  scope: host
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataOwner)
    principalId: app
    principalType: 'ServicePrincipal'
  }
}

resource appWritesUsage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(toLower(usage.id), app, storageBlobDataContributor)
  scope: usage
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: app
    principalType: 'ServicePrincipal'
  }
}

resource appWritesHistory 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(toLower(history.id), app, storageBlobDataContributor)
  scope: history
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: app
    principalType: 'ServicePrincipal'
  }
}

resource operatorReadsUsage 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(toLower(usage.id), operator, storageBlobDataReader)
  scope: usage
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
    principalId: operator
    principalType: operatorPrincipalType
  }
}

// The group is for Power BI, which reads nothing else.
resource readsHistory 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for reader in historyReaders: {
    name: guid(toLower(history.id), reader, storageBlobDataReader)
    scope: history
    properties: {
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataReader)
      principalId: reader
      principalType: reader == operator ? operatorPrincipalType : 'Group'
    }
  }
]

// Reads the refresh token, writes a newer version back, disables the one before.
resource keepsSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for keeper in vaultKeepers: {
    name: guid(toLower(vault.id), keeper, keyVaultSecretsOfficer)
    scope: vault
    properties: {
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsOfficer)
      principalId: keeper
      principalType: keeper == app ? 'ServicePrincipal' : operatorPrincipalType
    }
  }
]

resource appPublishes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(toLower(insights.id), app, monitoringMetricsPublisher)
  scope: insights
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: app
    principalType: 'ServicePrincipal'
  }
}

resource operatorReads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(toLower(workspace.id), operator, logAnalyticsReader)
  scope: workspace
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', logAnalyticsReader)
    principalId: operator
    principalType: operatorPrincipalType
  }
}
