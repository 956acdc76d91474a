{{- define "dfs.hookLabels" -}}
app.kubernetes.io/name: dfs-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: hook
app.kubernetes.io/part-of: dfs
{{- end -}}

{{/* Common parts of the pods of hooks. */}}
{{- define "dfs.hookPod" -}}
restartPolicy: Never
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "dfs.podSecurity" . | nindent 2 }}
{{- end -}}

{{/* Common parts of their containers. */}}
{{- define "dfs.hookContainer" -}}
image: {{ include "dfs.operatorImage" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {memory: 128Mi}
securityContext:
  {{- include "dfs.containerSecurity" . | nindent 2 }}
{{- end -}}
