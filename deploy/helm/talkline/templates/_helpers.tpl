{{- define "talkline.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "talkline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "talkline.labels" -}}
{{ include "talkline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "talkline.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "talkline.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "talkline.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The values' configuration, with what the chart itself decides: addresses, TLS, the grace. */}}
{{- define "talkline.config" -}}
{{- $listen := printf "0.0.0.0:%d" 8080 -}}
{{- $server := dict "listen" $listen -}}
{{- if .Values.tlsSecret -}}
{{- $_ := set $server "tls" (dict "cert" "/etc/talkline/tls/tls.crt" "key" "/etc/talkline/tls/tls.key") -}}
{{- end -}}
{{- $chart := dict
    "server" $server
    "admin" (dict "listen" (printf "0.0.0.0:%d" (int .Values.metrics.port)))
    "limits" (dict "drainGrace" (printf "%ds" (int .Values.drainGraceSeconds))) -}}
{{- mustToPrettyJson (mustMergeOverwrite (deepCopy .Values.config) $chart) -}}
{{- end -}}
