// What wakes somebody up. Each query reads the app's own events: one JSON object a line of AppTraces. A line may be
// logged long after its event. So bins and ages go by the event's `at`; windows go by TimeGenerated, so that a late
// line rings as well, and once. A record that goes on must not hide another that stands still: see `dataset`.
param token string
param location string
param tags object
param workspaceName string
param alertEmail string
param alertActionGroupId string
param refreshTokenAlertDays int
param snapshotSchedule string

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-07-01' existing = {
  name: workspaceName
}

resource byMail 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(alertEmail)) {
  name: 'ag-usage-summary-${token}'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'usagesummary'
    enabled: true
    emailReceivers: [
      {
        name: 'operator'
        emailAddress: alertEmail
        useCommonAlertSchema: true
      }
    ]
  }
}

var actionGroups = union(
  empty(alertEmail) ? [] : [byMail.id],
  empty(alertActionGroupId) ? [] : [alertActionGroupId]
)

// A rule has no window of 26 hours: it looks at two days, and the query back over 26 hours. A count of a summarize
// without `by` is a row even where there is nothing, so that absence is a 0 and below 1.
var always = [
  {
    name: 'no-snapshot-run'
    title: 'Usage summary: no successful snapshot run in 26 hours'
    severity: 1
    frequency: 'PT1H'
    window: 'P2D'
    measure: 'Runs'
    operator: 'LessThan'
    threshold: 1
    query: loadTextContent('alerts/no-snapshot-run.kql')
  }
  {
    name: 'refresh-token-old'
    title: 'Usage summary: the stored refresh token is not renewed'
    severity: 1
    frequency: 'PT6H'
    window: 'P1D'
    measure: 'AgeInDays'
    operator: 'GreaterThanOrEqual'
    threshold: refreshTokenAlertDays
    query: loadTextContent('alerts/refresh-token-old.kql')
  }
  {
    name: 'operator-needed'
    title: 'Usage summary: a person has to sign in, or a setting is wrong'
    severity: 1
    frequency: 'PT15M'
    window: 'PT1H'
    measure: 'Failures'
    operator: 'GreaterThanOrEqual'
    threshold: 1
    query: loadTextContent('alerts/operator-needed.kql')
  }
  {
    name: 'upstream-failing'
    title: 'Usage summary: no refresh has succeeded for 6 hours, and some failed in 3 of them or more'
    severity: 2
    frequency: 'PT30M'
    window: 'PT6H'
    measure: 'Failing'
    operator: 'GreaterThanOrEqual'
    threshold: 1
    query: loadTextContent('alerts/upstream-failing.kql')
  }
  {
    name: 'answers-stale'
    title: 'Usage summary: answers stand in for failed refreshes, hours after they became stale'
    severity: 2
    frequency: 'PT30M'
    window: 'PT1H'
    measure: 'Stale'
    operator: 'GreaterThanOrEqual'
    threshold: 1
    query: loadTextContent('alerts/answers-stale.kql')
  }
  {
    name: 'record-damaged'
    title: 'Usage summary: a snapshot or the history is not as it was written'
    severity: 1
    frequency: 'PT1H'
    window: 'PT6H'
    measure: 'Damaged'
    operator: 'GreaterThanOrEqual'
    threshold: 1
    query: loadTextContent('alerts/record-damaged.kql')
  }
]

// A run that ended badly is a run: others tell of it. The rule rings 2 to 2.5 hours after the last line of a run, and
// the line may be 20 minutes on its way. A run may last 10 minutes and begin half an hour late, and no rule rings.
var silent = {
  name: 'runs-silent'
  title: 'Usage summary: no run has ended for 2 hours, though one is due each hour'
  severity: 1
  frequency: 'PT30M'
  window: 'PT2H'
  measure: 'Runs'
  operator: 'LessThan'
  threshold: 1
  query: loadTextContent('alerts/runs-silent.kql')
}

// The last four fields are those of the hour and the days: with any other schedule, two hours of silence are no fault.
var rules = concat(always, endsWith(snapshotSchedule, ' * * * *') ? [silent] : [])

resource alert 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [
  for rule in rules: {
    name: '${rule.name}-${token}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: rule.title
      description: 'docs/operations.md, ${rule.name}'
      severity: rule.severity
      enabled: true
      scopes: [
        workspace.id
      ]
      evaluationFrequency: rule.frequency
      windowSize: rule.window
      autoMitigate: true
      skipQueryValidation: true // the table comes with the first line
      criteria: {
        allOf: [
          {
            query: rule.query
            metricMeasureColumn: rule.measure
            timeAggregation: 'Total'
            operator: rule.operator
            threshold: rule.threshold
            failingPeriods: {
              numberOfEvaluationPeriods: 1
              minFailingPeriodsToAlert: 1
            }
          }
        ]
      }
      actions: {
        actionGroups: actionGroups
      }
    }
  }
]
