// Two accounts: the host's, with the fleet's shared answer, and the record's, which keeps versions and is locked.
param hostStorageName string
param recordStorageName string
param location string
param tags object
param recordRedundancy string
param recordImmutableDays int

resource host 'Microsoft.Storage/storageAccounts@2025-06-01' = {
  name: hostStorageName
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
  name: recordStorageName
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
// An account has one policy: a rule that somebody adds by hand is gone after the next provisioning, so a rule belongs
// here. No rule may archive a blob of the record: an archived blob cannot be read.
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
