// The function app on Flex Consumption: no keys, no secrets; the package is read by the identity.
param token string
param location string
param tags object
param identityId string
param identityClientId string
param hostEndpoints object
param deploymentContainerUrl string
param recordBlobEndpoint string
param insightsConnectionString string
param partnerCenterTenantId string
param partnerCenterClientId string
param partnerCenterCloud string
param refreshTokenSecret string
param snapshotSchedule string

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: 'plan-usage-summary-${token}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

resource site 'Microsoft.Web/sites@2025-03-01' = {
  name: 'func-usage-summary-${token}'
  location: location
  tags: union(tags, {
    'azd-service-name': 'app'
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    keyVaultReferenceIdentity: identityId
    siteConfig: {
      minTlsVersion: '1.2'
      http20Enabled: true
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: deploymentContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: 2048
        maximumInstanceCount: 40
        triggers: {
          http: {
            // The default for Python is 1. A hit is a fraction of a millisecond on the event loop and a wait for a
            // refresh holds no thread, so that one instance serves a hundred callers, cold ones included.
            perInstanceConcurrency: 100
          }
        }
      }
    }
  }
}

resource settings 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: site
  name: 'appsettings'
  properties: {
    AzureWebJobsStorage__blobServiceUri: hostEndpoints.blob
    AzureWebJobsStorage__queueServiceUri: hostEndpoints.queue
    AzureWebJobsStorage__tableServiceUri: hostEndpoints.table
    AzureWebJobsStorage__credential: 'managedidentity'
    AzureWebJobsStorage__clientId: identityClientId
    APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
    APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
    AZURE_CLIENT_ID: identityClientId
    PARTNER_CENTER_CLOUD: partnerCenterCloud
    PARTNER_CENTER_TENANT_ID: partnerCenterTenantId
    PARTNER_CENTER_CLIENT_ID: partnerCenterClientId
    PARTNER_CENTER_CLIENT_MANAGED_IDENTITY: identityClientId
    PARTNER_CENTER_REFRESH_TOKEN_SECRET: refreshTokenSecret
    SNAPSHOT_SCHEDULE: snapshotSchedule
    USAGE_STORAGE__blobServiceUri: recordBlobEndpoint
    USAGE_STORAGE__clientId: identityClientId
  }
}

// Deployment by name and password: off.
resource ftp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: site
  name: 'ftp'
  dependsOn: [
    settings // one after the other: the site refuses writes at the same time
  ]
  properties: {
    allow: false
  }
}

resource scm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: site
  name: 'scm'
  dependsOn: [
    ftp
  ]
  properties: {
    allow: false
  }
}

output name string = site.name
output hostName string = site.properties.defaultHostName
