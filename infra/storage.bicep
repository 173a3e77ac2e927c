// Two accounts: the host's, with the fleet's shared answer, and the record's, which keeps versions and is locked.
param token string
param location string
param tags object
param recordRedundancy string
param recordImmutableDays int
param appPrincipalId string
param operatorPrincipalId string
param operatorPrincipalType string
param reportReaderGroupId string

var storageBlobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var storageBlobDataReader = '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1'

resource host 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: 'sthost${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource hostBlobs 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' = {
  parent: host
  name: 'default'
}

resource deployments 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = {
  parent: hostBlobs
  name: 'deployments'
}

resource cache 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = {
  parent: hostBlobs
  name: 'usage-cache'
}

resource record 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: 'strecord${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: recordRedundancy
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource recordBlobs 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' = {
  parent: record
  name: 'default'
  properties: {
    isVersioningEnabled: true
    deleteRetentionPolicy: {
      enabled: true
      days: 30
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 30
    }
  }
}

resource usage 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = {
  parent: recordBlobs
  name: 'usage'
}

resource worm 'Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies@2025-06-01' = if (recordImmutableDays > 0) {
  parent: usage
  name: 'default'
  properties: {
    immutabilityPeriodSinceCreationInDays: recordImmutableDays
  }
}

resource history 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-06-01' = {
  parent: recordBlobs
  name: 'usage-history'
}

// The history is rewritten daily or more often; its versions of the last months are enough. Snapshots have none.
resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2025-06-01' = {
  parent: record
  name: 'default'
  dependsOn: [
    recordBlobs
  ]
  properties: {
    policy: {
      rules: [
        {
          name: 'old-versions-of-the-history'
          enabled: true
          type: 'Lifecycle'
          definition: {
            filters: {
              blobTypes: [
                'blockBlob'
              ]
              prefixMatch: [
                'usage-history/'
              ]
            }
            actions: {
              version: {
                delete: {
                  daysAfterCreationGreaterThan: 90
                }
              }
            }
          }
        }
      ]
    }
  }
}

// `azd down` must not take the only record with it: docs/operations.md tells how to remove it on purpose.
resource lock 'Microsoft.Authorization/locks@2020-05-01' = {
  name: 'the-only-record'
  scope: record
  properties: {
    level: 'CanNotDelete'
    notes: 'Partner Center keeps no history: what is deleted here is gone. See docs/operations.md.'
  }
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

output hostName string = host.name
output hostEndpoints object = host.properties.primaryEndpoints
output deploymentContainerUrl string = '${host.properties.primaryEndpoints.blob}${deployments.name}'
output recordBlobEndpoint string = record.properties.primaryEndpoints.blob
output historyUrl string = '${record.properties.primaryEndpoints.blob}${history.name}/usagesummary.ndjson'
