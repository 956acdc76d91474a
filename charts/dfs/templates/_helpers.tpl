{{/* Names within a release. */}}
{{- define "dfs.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains "dfs" .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-dfs" .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "dfs.operator" -}}
{{ include "dfs.fullname" . }}-operator
{{- end -}}

{{/* Names of cluster-scoped objects: releases of one name in two namespaces must not conflict. */}}
{{- define "dfs.clusterScoped" -}}
{{ .Release.Namespace }}-{{ include "dfs.operator" . }}
{{- end -}}

{{- define "dfs.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "dfs.operator" .) }}
{{- else -}}
{{ required "serviceAccount.name must be set where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "dfs.selector" -}}
app.kubernetes.io/name: dfs-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "dfs.labels" -}}
{{ include "dfs.selector" . }}
app.kubernetes.io/part-of: dfs
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "dfs.operatorImage" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Image of the cluster in the values, with the defaults of the CRD. */}}
{{- define "dfs.clusterImage" -}}
{{- with .Values.cluster.spec.image | default dict -}}
{{- $repository := .repository | default "ghcr.io/dfs-io/dfs" -}}
{{- if .digest -}}
{{ $repository }}@{{ .digest }}
{{- else -}}
{{ $repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- else -}}
ghcr.io/dfs-io/dfs:{{ .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Security context of pods for the profile "restricted". */}}
{{- define "dfs.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Security context of containers for the same profile. */}}
{{- define "dfs.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
