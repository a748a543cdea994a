// Talkline in Azure Container Apps.
//
// A user-assigned identity signs in to Azure OpenAI and to Key Vault, and pulls the image. No key of the
// model is anywhere; the only secret is the one that clients present, and it stays in Key Vault.

targetScope = 'resourceGroup'

@description('Name of the azd environment; part of every name here.')
@minLength(1)
@maxLength(32)
param environmentName string

@description('Region of everything here. The Azure OpenAI resource may be in another one.')
param location string = resourceGroup().location

@description('Name of an existing Azure OpenAI (Azure AI Foundry) resource in this resource group.')
param openAiName string

@description('Name of its Realtime deployment.')
param deploymentName string

@description('The image. azd sets it when it has built one.')
param imageName string = 'mcr.microsoft.com/k8se/quickstart:latest'

@description('The key that clients present. Written to Key Vault, and nowhere else.')
@secure()
@minLength(32)
param clientKey string

@description('Web origins whose pages may open sessions, separated by commas.')
param allowedOrigins string = ''

@description('Most sessions of one replica.')
@minValue(1)
@maxValue(10000)
param sessionsMax int = 300

@description('Least replicas. Two, so that one may go away.')
@minValue(1)
param replicasMin int = 2

@description('Most replicas.')
param replicasMax int = 10

var token = toLower(uniqueString(resourceGroup().id, environmentName, location))
var tags = {
  'azd-env-name': environmentName
}

// Role "Cognitive Services OpenAI User": may call the models, and may not list keys, deploy or configure.
// https://learn.microsoft.com/azure/ai-foundry/openai/how-to/role-based-access-control
var openAiUser = '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'
// Role "Key Vault Secrets User": may read secrets' values.
// https://learn.microsoft.com/azure/key-vault/general/rbac-guide
var secretsUser = '4633458b-17de-408a-b874-0445c86b69e6'
// Role "AcrPull".
// https://learn.microsoft.com/azure/container-registry/container-registry-rbac-built-in-roles-overview
var acrPull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'

var origins = empty(allowedOrigins) ? '' : replace('"${allowedOrigins}"', ',', '","')
var configuration = join([
  'server.listen = "0.0.0.0:8080"'
  'server.allowedOrigins = [${origins}]'
  'talk.realtime.provider = "azure-openai"'
  'talk.realtime.providers.openai.azureEndpoint = "${openAi.properties.endpoint}"'
  'talk.realtime.providers.openai.azureDeployment = "${deploymentName}"'
  'talk.realtime.providers.openai.auth.kind = "managed-identity"'
  'talk.realtime.providers.openai.auth.clientId = "${identity.properties.clientId}"'
  'limits.maxSessions = ${sessionsMax}'
  'limits.pingInterval = "15s"'
  'limits.drainGrace = "570s"'
], '\n')

resource openAi 'Microsoft.CognitiveServices/accounts@2024-10-01' existing = {
  name: openAiName
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: 'id-talkline-${token}'
  location: location
  tags: tags
}

resource openAiRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(openAi.id, identity.id, openAiUser)
  scope: openAi
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', openAiUser)
  }
}

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: 'kv${token}'
  location: location
  tags: tags
  properties: {
    tenantId: subscription().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 7
  }
}

resource clientKeySecret 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = {
  parent: vault
  name: 'talkline-client-key'
  properties: {
    value: clientKey
  }
}

resource vaultRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identity.id, secretsUser)
  scope: vault
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', secretsUser)
  }
}

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: 'cr${token}'
  location: location
  tags: tags
  sku: {
    name: 'Basic'
  }
  properties: {
    adminUserEnabled: false
  }
}

resource registryRole 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, identity.id, acrPull)
  scope: registry
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', acrPull)
  }
}

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: 'log-talkline-${token}'
  location: location
  tags: tags
  properties: {
    retentionInDays: 30
    sku: {
      name: 'PerGB2018'
    }
  }
}

resource environment 'Microsoft.App/managedEnvironments@2024-03-01' = {
  name: 'cae-talkline-${token}'
  location: location
  tags: tags
  properties: {
    appLogsConfiguration: {
      destination: 'log-analytics'
      logAnalyticsConfiguration: {
        customerId: logs.properties.customerId
        sharedKey: logs.listKeys().primarySharedKey
      }
    }
  }
}

resource app 'Microsoft.App/containerApps@2024-03-01' = {
  name: 'ca-talkline-${token}'
  location: location
  tags: union(tags, {
    'azd-service-name': 'talkline'
  })
  dependsOn: [
    openAiRole
    vaultRole
    registryRole
  ]
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identity.id}': {}
    }
  }
  properties: {
    managedEnvironmentId: environment.id
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        external: true
        targetPort: 8080
        // WebSocket needs HTTP/1.1. The ingress drops sockets that are idle for 240 s; Talkline pings
        // each side every 15 s (limits.pingInterval).
        transport: 'http'
        allowInsecure: false
      }
      registries: [
        {
          server: registry.properties.loginServer
          identity: identity.id
        }
      ]
      secrets: [
        {
          // Not secret; a mounted secret is how Container Apps shows a file.
          name: 'talkline-toml'
          value: configuration
        }
        {
          name: 'client-key'
          keyVaultUrl: clientKeySecret.properties.secretUri
          identity: identity.id
        }
      ]
    }
    template: {
      // The longest that Container Apps allows. limits.drainGrace of 570 s ends before it.
      terminationGracePeriodSeconds: 600
      containers: [
        {
          name: 'talkline'
          image: imageName
          args: [
            'run'
            '--config'
            '/etc/talkline/config/talkline.toml'
            '--log-format'
            'json'
          ]
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          env: [
            {
              name: 'TALKLINE_CLIENT_KEY'
              secretRef: 'client-key'
            }
          ]
          probes: [
            {
              type: 'Liveness'
              httpGet: {
                path: '/healthz'
                port: 8080
              }
              periodSeconds: 10
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/readyz'
                port: 8080
              }
              periodSeconds: 5
              failureThreshold: 2
            }
          ]
          volumeMounts: [
            {
              volumeName: 'config'
              mountPath: '/etc/talkline/config'
            }
          ]
        }
      ]
      volumes: [
        {
          name: 'config'
          storageType: 'Secret'
          secrets: [
            {
              secretRef: 'talkline-toml'
              path: 'talkline.toml'
            }
          ]
        }
      ]
      scale: {
        minReplicas: replicasMin
        maxReplicas: replicasMax
        rules: [
          {
            name: 'sessions'
            // An open WebSocket counts as a concurrent request. Never by processor time.
            http: {
              metadata: {
                concurrentRequests: string(sessionsMax * 7 / 10)
              }
            }
          }
        ]
      }
    }
  }
}

output AZURE_CONTAINER_REGISTRY_ENDPOINT string = registry.properties.loginServer
output TALKLINE_URL string = 'wss://${app.properties.configuration.ingress.fqdn}/v1/realtime'
