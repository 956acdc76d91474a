{{- define "dfs.testContainer" -}}
image: {{ include "dfs.clusterImage" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: DFS_COORDINATOR
    value: http://{{ .Values.cluster.name }}-coordinator.{{ .Release.Namespace }}.svc:7070
resources:
  requests: {cpu: 10m, memory: 64Mi}
  limits: {memory: 512Mi}
securityContext:
  {{- include "dfs.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- end -}}
